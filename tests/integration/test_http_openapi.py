"""What the OpenAPI document promises: schemathesis asks what it allows and what it does not, and judges the answers by it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedex.dev.stack import Addresses
from support.served import Served, serving

REFERENCE = Path(__file__).parents[2] / "docs" / "http.md"
TOKEN = "openapi-0123456789abcdef"
EXAMPLES = int(os.environ.get("TEST_OPENAPI_EXAMPLES", "15"))  # of each route
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "negative_data_rejection", "ignored_auth", "unsupported_method")  # fmt: skip

# a deadline that has passed is no error of the server
CONFIG = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "504"]\n'


@pytest.fixture(scope="module")
def served(stack: Addresses, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A query worker that asks for a token."""
    folder = tmp_path_factory.mktemp("http")
    tokens = folder / "tokens.toml"
    tokens.write_text(f'[tokens.openapi]\ntoken = "{TOKEN}"\ncollections = ["*"]\noperator = true\n')
    with serving(stack, template, folder, api_tokens_file=tokens) as worker:
        yield worker


def test_schemathesis_finds_no_request_that_breaks_the_contract(served: Served, tmp_path: Path) -> None:
    """Every answer has a status, a type and a form that the document lists; what it forbids is refused; none is a 500."""
    address = str(served.client.base_url)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
            *("--request-timeout", "20", "--no-color", "--continue-on-failure"),
            *("--generation-deterministic", "--suppress-health-check", "all", "--exclude-path", "/metrics"),
        ],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]


def test_the_reference_names_all_that_the_document_has(served: Served) -> None:
    """Each route, each field and each status stands in docs/http.md."""
    described = served.client.get("/openapi.json").json()
    reference = REFERENCE.read_text()
    fields = {
        field
        for name in ("SearchRequest", "SearchResponse", "Result", "BatchRequest", "Problem")
        for field in described["components"]["schemas"][name]["properties"]
    }
    statuses = {
        status for methods in described["paths"].values() for method in methods.values() for status in method["responses"]
    }
    assert {path for path in described["paths"] if path not in reference} == set()
    assert {field for field in fields if f"`{field}`" not in reference} == set()
    assert {status for status in statuses - {"200", "default"} if f"| {status} |" not in reference} == set()
