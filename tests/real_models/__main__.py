"""Make all models and say where they are."""

from rich.console import Console

from real_models import ALL, folder_of

for model in ALL:
    Console().print(f"{model.name}: {model.kind}, {model.weights}: {folder_of(model)}", soft_wrap=True)
