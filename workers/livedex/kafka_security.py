"""TLS and logins of the Kafka clients: settings that contradict themselves are found before anything is asked, and what a
broker refuses is told by its remedy. No password is quoted.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka.errors import (
    AuthorizationError,
    IllegalSaslStateError,
    InvalidReceiveError,
    KafkaConnectionError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.transport import KafkaSSLTransport

from livedex.errors import ConfigError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
BY_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# Options of ours, beside those of the client: a password need not stand among the settings.
SECRET_FILES = {"sasl_plain_password_file": "sasl_plain_password", "ssl_password_file": "ssl_password"}
MOST_BYTES = 4096  # of such a file
_TLS_ALERT = 0x15  # how a listener of TLS answers what is none


def complete(client: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the passwords of their files; ConfigError when they contradict each other or a file is wrong."""
    options = dict(client)
    for name, secret in SECRET_FILES.items():
        if name in options:
            if secret in options:
                raise ConfigError(f"the setting kafka.client has {secret} and {name}: remove one of them")
            options[secret] = _secret(name, Path(str(options.pop(name))))
    protocol = options.get("security_protocol", "PLAINTEXT")
    if protocol not in PROTOCOLS:
        raise ConfigError(f"the setting kafka.client.security_protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    _refuse_unused(options, protocol)
    if protocol.startswith("SASL"):
        _check_login(options)
    if protocol.endswith("SSL"):
        _check_tls(options)
    return options


def _secret(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1).decode().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}; check kafka.client.{name}") from None
    except UnicodeDecodeError:
        content = ""
    if not content or len(content) > MOST_BYTES or "\n" in content:
        raise ConfigError(f"the file {path} does not have one password on one line: check kafka.client.{name}")
    return content


def _refuse_unused(options: Mapping[str, Any], protocol: str) -> None:
    """Whoever names an authority believes that the connection is encrypted."""
    for prefix, wanted in (("ssl_", "SSL"), ("sasl_", "SASL")):
        unused = sorted(name for name, value in options.items() if name.startswith(prefix) and value not in (None, ""))
        if unused and wanted not in protocol.split("_"):
            better = "SASL_SSL" if any(part in protocol for part in ("SASL", "SSL")) else f"{wanted} or SASL_SSL"
            raise ConfigError(
                f"the setting kafka.client has {', '.join(unused)}, but security_protocol is {protocol}, which makes no use of "
                f"it: set security_protocol to {better.replace('SASL or ', 'SASL_PLAINTEXT or ')}, or remove it"
            )


def _check_login(options: Mapping[str, Any]) -> None:
    mechanism = options.get("sasl_mechanism")
    if not mechanism:
        raise ConfigError(
            f"the setting kafka.client has no sasl_mechanism, which {options['security_protocol']} needs: set it to "
            f"{', '.join(BY_PASSWORD[:-1])} or {BY_PASSWORD[-1]}, as the broker's listener has it"
        )
    wanted = ("sasl_plain_username", "sasl_plain_password") if mechanism in BY_PASSWORD else ()
    missing = [name for name in wanted if not isinstance(options.get(name), str) or not options[name]]
    if missing:
        raise ConfigError(
            f"the setting kafka.client has no {' and no '.join(missing)} (text), which {mechanism} needs: set it; a password "
            "may be in a file that sasl_plain_password_file names"
        )


def _check_tls(options: Mapping[str, Any]) -> None:
    """What the client would find out at each connect, and keep to itself."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"):
        if options.get(name):
            _check_readable(name, str(options[name]))
    if options.get("ssl_cafile"):
        _build("ssl_cafile", {"ssl_cafile": options["ssl_cafile"]}, "which is no certificate of an authority in PEM")
    if options.get("ssl_certfile"):
        # without a password OpenSSL would ask for one at the terminal
        password = options.get("ssl_password") or "none"
        own = {name: options.get(name) for name in ("ssl_certfile", "ssl_keyfile")} | {"ssl_password": password}
        _build("ssl_certfile", own, "which does not fit ssl_keyfile and ssl_password, or is no certificate in PEM")
    if options.get("ssl_keyfile") and not options.get("ssl_certfile"):
        raise ConfigError("the setting kafka.client has ssl_keyfile and no ssl_certfile: name the key's certificate, too")
    if options.get("ssl_crlfile"):
        _build("ssl_crlfile", {"ssl_crlfile": options["ssl_crlfile"]}, "which is no list of revoked certificates in PEM")


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}; check kafka.client.{name}") from None


def _build(name: str, own: Mapping[str, Any], what: str) -> None:
    try:
        KafkaSSLTransport._build_ssl_context({**KafkaSSLTransport.DEFAULT_CONFIG, **own})  # noqa: SLF001 - what each connect does
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(f"the setting kafka.client.{name} is {own[name]}, {what} ({why}): correct it") from None


def refusal(failures: Iterable[Exception], options: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings, by what brokers answered; None when waiting may help."""
    return next((told for failure in failures for told in _told(failure, options)), None)


def no_answer(failures: Sequence[Exception], options: Mapping[str, Any]) -> str:
    """The last failure in a few words, with a hint where a listener that speaks something else would look so."""
    last = failures[-1]
    says = str(last).removeprefix(f"{type(last).__name__}: ") or type(last).__name__
    if any(sign in says for sign in ("socket disconnected", "EOF occurred")):
        protocol = options.get("security_protocol", "PLAINTEXT")
        says += f"; if it runs, see whether its listener speaks {protocol}, the security_protocol of the setting kafka.client"
    return says


def _told(failure: Exception, options: Mapping[str, Any]) -> Iterator[str]:
    cause = _cause(failure)
    if isinstance(cause, SaslAuthenticationFailedError):
        yield (
            f"kafka refuses the login of {options.get('sasl_plain_username')!r} by {options.get('sasl_mechanism')}: check "
            "sasl_plain_username, sasl_plain_password and sasl_mechanism of kafka.client, and the user at the broker"
        )
    elif isinstance(cause, UnsupportedSaslMechanismError):
        yield (
            f"kafka's listener does not take {options.get('sasl_mechanism')}: set kafka.client.sasl_mechanism to one of its "
            "sasl.enabled.mechanisms"
        )
    elif isinstance(cause, IllegalSaslStateError):
        yield "kafka's listener asks for no login: set kafka.client.security_protocol to SSL or PLAINTEXT, as it has it"
    elif isinstance(cause, AuthorizationError):
        yield f"kafka refuses the client: {type(cause).__name__}: give its user the right at the broker"
    elif isinstance(cause, InvalidReceiveError) and _first_byte(cause) == _TLS_ALERT:
        yield "kafka's listener wants TLS: set kafka.client.security_protocol to SSL or SASL_SSL, and ssl_cafile"
    elif isinstance(cause, ssl.SSLCertVerificationError):
        yield _unverified(cause, options)
    elif isinstance(cause, ssl.SSLError):
        yield from _broken(cause)


def _cause(failure: Exception) -> BaseException:
    """What the client wrapped, where it did."""
    first = next(iter(failure.args), None)
    inner = failure.__context__ if str(first).startswith("Handshake failed") else first
    return inner if isinstance(failure, KafkaConnectionError) and isinstance(inner, Exception) else failure


def _first_byte(error: InvalidReceiveError) -> int:
    digits = "".join(character for character in str(error).rpartition(":")[2] if character.isdigit())
    return int(digits or 0) >> 24


_HOSTNAME_MISMATCH, _IP_MISMATCH, _HAS_EXPIRED, _NOT_YET_VALID = 62, 64, 10, 9  # X509_V_ERR_*


def _unverified(error: ssl.SSLCertVerificationError, options: Mapping[str, Any]) -> str:
    says = error.verify_message.rstrip(".")
    if error.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return (
            f"the certificate of kafka is made out to another host ({says}): use in bootstrap_servers, and in the broker's "
            "advertised.listeners, a name that the certificate has"
        )
    if error.verify_code in (_HAS_EXPIRED, _NOT_YET_VALID):
        return f"the certificate of kafka is not valid today ({says}): renew it at the broker, and check this machine's clock"
    authority = options.get("ssl_cafile") or "this machine's authorities"
    return (
        f"the certificate of kafka is not of an authority in {authority} ({says}): let kafka.client.ssl_cafile name the "
        "authority that signed it"
    )


# how a broker, and OpenSSL on this side, names what is wrong with a client's certificate
_ALERTS = ("CERTIFICATE_REQUIRED", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "UNKNOWN_CA",
           "CERTIFICATE_REVOKED", "HANDSHAKE_FAILURE")  # fmt: skip


def _broken(error: ssl.SSLError) -> Iterator[str]:
    reason = getattr(error, "reason", None) or ""  # one that OpenSSL did not make has none
    if any(alert in reason for alert in _ALERTS):
        yield (
            f"kafka refuses this client's certificate ({reason.lower().replace('_', ' ')}): let kafka.client.ssl_certfile and "
            "ssl_keyfile name a valid certificate of an authority that the broker's truststore has, and its key"
        )
    elif reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        yield "kafka's listener does not speak TLS: set kafka.client.security_protocol, or the port in bootstrap_servers"
