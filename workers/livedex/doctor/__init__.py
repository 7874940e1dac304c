"""The checks of `livedex doctor`: each looks at one thing that livedex needs, and says that it is in order or what to do."""
