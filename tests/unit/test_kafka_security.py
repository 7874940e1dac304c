"""Options of Kafka's clients that contradict themselves, before anything is asked."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import InvalidReceiveError, KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailedError

from livedex.errors import ConfigError
from livedex.kafka_security import complete, no_answer, refusal
from support.secure.certificates import KEY_PASSWORD, Certificates

LOGIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u"}
SECRET = "of-the-unit-test-1234"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority of this module's own."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"security_protocol": "TLS"}, r"security_protocol is 'TLS', expected one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        (
            {"ssl_cafile": "ca.pem"},
            r"ssl_cafile, but security_protocol is PLAINTEXT.*: set security_protocol to SSL or SASL_SSL",
        ),
        ({"sasl_mechanism": "PLAIN"}, r"sasl_mechanism, but security_protocol is PLAINTEXT.*to SASL_PLAINTEXT or SASL_SSL"),
        ({"security_protocol": "SSL", "sasl_plain_password": SECRET}, r"security_protocol is SSL.*to SASL_SSL, or remove"),
        ({**LOGIN, "sasl_plain_password": SECRET, "ssl_cafile": "ca"}, r"security_protocol is SASL_PLAINTEXT.*to SASL_SSL"),
        ({"security_protocol": "SASL_SSL"}, r"no sasl_mechanism, which SASL_SSL needs"),
        (LOGIN, r"no sasl_plain_password \(text\), which PLAIN needs"),
        ({**LOGIN, "sasl_plain_password": 1234}, r"no sasl_plain_password \(text\)"),
        ({"security_protocol": "SSL", "ssl_cafile": "/nowhere"}, r"/nowhere cannot be read: No such file.*ssl_cafile"),
        ({"security_protocol": "SSL", "ssl_cafile": "/proc/self/stat"}, r"ssl_cafile is .*no certificate of an authority"),
        ({"security_protocol": "SSL", "ssl_keyfile": "/proc/self/stat"}, r"ssl_keyfile and no ssl_certfile"),
        ({**LOGIN, "sasl_plain_password_file": "/nowhere"}, r"/nowhere cannot be read: .*sasl_plain_password_file"),
        ({**LOGIN, "sasl_plain_password": SECRET, "sasl_plain_password_file": "x"}, r"remove one of them"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], says: str) -> None:
    """With the option, and what to do; a password is not quoted."""
    with pytest.raises(ConfigError, match=says) as caught:
        complete(options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", "two\nlines\n", "x" * 5000, b"\xff"])
def test_a_file_without_one_password_is_refused(tmp_path: Path, content: str | bytes) -> None:
    """Without quoting it."""
    path = tmp_path / "password"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match="does not have one password on one line"):
        complete({**LOGIN, "sasl_plain_password_file": str(path)})


def test_a_password_comes_from_its_file(tmp_path: Path) -> None:
    """Blanks in it are its own; the end of the line is not."""
    path = tmp_path / "password"
    path.write_text(" of the file \n")
    options = complete({**LOGIN, "sasl_plain_password_file": str(path)})
    assert options == {**LOGIN, "sasl_plain_password": " of the file "}


def test_keys_are_tried_before_they_are_used(certificates: Certificates) -> None:
    """One that does not fit its certificate, or its password, is refused without asking anybody at the terminal."""
    pair, other = certificates.client(), certificates.client("other")
    encrypted = str(certificates.encrypted(pair))
    base = {"security_protocol": "SSL", "ssl_certfile": str(pair.certificate)}
    complete({**base, "ssl_keyfile": str(pair.key)})
    complete({**base, "ssl_keyfile": encrypted, "ssl_password": KEY_PASSWORD})
    for wrong in ({"ssl_keyfile": str(other.key)}, {"ssl_keyfile": encrypted}, {"ssl_keyfile": encrypted, "ssl_password": "x"}):
        with pytest.raises(ConfigError, match="does not fit ssl_keyfile and ssl_password"):
            complete({**base, **wrong})


def test_what_may_pass_is_no_refusal() -> None:
    """A connection that is refused, closed or slow is waited for; only what the settings decide is told as theirs."""
    passing = [
        KafkaTimeoutError("Unable to bootstrap"),
        KafkaConnectionError("111 ECONNREFUSED"),
        KafkaConnectionError("socket disconnected"),
        KafkaConnectionError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
        InvalidReceiveError("Invalid frame length: 1213486160"),  # HTTP
    ]
    assert refusal(passing, {}) is None
    assert "wants TLS" in (refusal([*passing, InvalidReceiveError("Invalid frame length: 352518912")], {}) or "")
    assert "refuses the login" in (refusal([*passing, SaslAuthenticationFailedError("no")], LOGIN) or "")


def test_the_last_failure_is_told() -> None:
    """Without the class twice; where the protocol may be another, with that hint."""
    assert no_answer([KafkaTimeoutError("x"), KafkaConnectionError("111 ECONNREFUSED")], {}) == "111 ECONNREFUSED"
    assert "whether its listener speaks SSL" in no_answer(
        [KafkaConnectionError("socket disconnected")], {"security_protocol": "SSL"}
    )
