"""The development stack on the real thing: it starts, stays, heals and goes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import psutil
import psycopg
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from livedex import resources
from livedex.dev.postgres import privileges
from livedex.dev.stack import Addresses, Stack
from livedex.errors import UnavailableError

TOPIC = TopicPartition("kept", 0)
CLI = [sys.executable, "-m", "livedex", "dev"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of one stack for this file, stopped at the end."""
    folder = tmp_path_factory.mktemp("a stäck")  # quoted and encoded wherever it goes
    try:
        yield folder
    finally:
        Stack(folder).down()


@pytest.fixture
def stack(folder: Path) -> Stack:
    """The stack, up, whatever the test before did to it."""
    stack = Stack(folder)
    stack.up()
    return stack


def pids(stack: Stack) -> tuple[int, int]:
    """Of the broker and the postmaster, which both run."""
    kafka, postgres = stack.kafka.daemon.pid, stack.postgres.daemon.pid
    assert kafka is not None
    assert postgres is not None
    return kafka, postgres


def processes(folder: Path) -> list[psutil.Process]:
    """What runs with this folder in its command line or as its working directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        place = f"{process.info['cwd']} {' '.join(process.info['cmdline'] or [])}"
        if str(folder) in place and process.pid != os.getpid():
            found.append(process)
    return found


def put(addresses: Addresses) -> None:
    """Leave a record and a row."""
    with KafkaAdminClient(bootstrap_servers=addresses.kafka_bootstrap_servers) as admin:
        admin.create_topics({TOPIC.topic: {"num_partitions": 1}}, wait_for_metadata=True)
    producer = KafkaProducer(bootstrap_servers=addresses.kafka_bootstrap_servers)
    producer.send(TOPIC.topic, b"kept").get(timeout=10)
    producer.close()
    with psycopg.connect(addresses.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'kept' AS word")


def kept(addresses: Addresses) -> tuple[bytes, str]:
    """Read the record and the row."""
    consumer = KafkaConsumer(
        bootstrap_servers=addresses.kafka_bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    try:
        consumer.assign([TOPIC])
        record = next(iter(consumer))
    finally:
        consumer.close()
    with psycopg.connect(addresses.database_url) as connection:
        row = connection.execute("SELECT word FROM kept").fetchone()
    assert row is not None
    return record.value, row[0]


@pytest.fixture(scope="module")
def _data(folder: Path) -> None:
    put(Stack(folder).up())


def test_up_finds_what_runs(stack: Stack) -> None:
    """A second `up` starts nothing and gives the same addresses."""
    before = pids(stack), stack.addresses()
    assert (stack.up(), pids(stack)) == (before[1], before[0])


@pytest.mark.usefixtures("_data")
def test_data_survives_down_and_up(stack: Stack) -> None:
    """`down` ends both servers, twice is fine, and the data is there after the next `up`, at the same addresses."""
    before = stack.addresses()
    stack.down()
    stack.down()
    assert processes(stack.directory) == []
    assert stack.up() == before
    assert kept(before) == (b"kept", "kept")


@pytest.mark.usefixtures("_data")
def test_up_heals_after_kill_9(stack: Stack) -> None:
    """Killed in the middle of work, both come back with their data although a backend outlived its postmaster."""
    before = pids(stack)
    with psycopg.connect(stack.postgres.url) as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)  # busy: it does not see that its postmaster is gone
        victims = [psutil.Process(pid) for pid in before]
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, timeout=10)
        addresses = stack.up()
    assert not set(before) & set(pids(stack))
    assert kept(addresses) == (b"kept", "kept")


def test_up_heals_what_ends_while_it_looks(stack: Stack) -> None:
    """A server that was found running and then ends without an answer is started again."""
    _, before = pids(stack)
    os.kill(before, signal.SIGSTOP)  # it runs, and it does not answer
    with subprocess.Popen(["/bin/sh", "-c", f"sleep 0.5; kill -9 {before}"]):
        stack.up()
    assert pids(stack)[1] != before


@pytest.mark.accept
@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_each_server_is_controlled_on_its_own(stack: Stack, name: str) -> None:
    """The fault suite kills and starts one server; the other goes on."""
    one, other = (stack.kafka, stack.postgres) if name == "kafka" else (stack.postgres, stack.kafka)
    untouched = other.daemon.pid
    one.kill()
    assert one.daemon.pid is None
    assert one.start()
    assert not one.start()
    one.wait_ready()
    assert other.daemon.pid == untouched


def test_recycled_lock_file_does_not_stop_postgres(stack: Stack) -> None:
    """After a crash the pid in postmaster.pid may be anybody's; the server starts all the same."""
    stack.postgres.kill()
    with subprocess.Popen([*privileges(), "/bin/sleep", "60"]) as anybody:  # of the server's own user
        try:
            (stack.postgres.data / "postmaster.pid").write_text(f"{anybody.pid}\n")
            stack.up()
        finally:
            anybody.kill()


def test_failed_up_leaves_nothing_running(stack: Stack) -> None:
    """When one server cannot start, the error has its log, and the other one is stopped again."""
    stack.down()
    settings = stack.postgres.data / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(UnavailableError, match=r"postgres ended while starting(.|\n)*no_such_setting"):
            stack.up()
        assert processes(stack.directory) == []
    finally:
        settings.write_text(before)


def test_command_line_in_a_pipe(stack: Stack) -> None:
    """`up` in a pipe ends although its servers go on, twice at once is fine, and a shell can eval what `env` prints."""
    stack.down()
    directory = f"--dir={stack.directory}"
    ups = [subprocess.Popen([*CLI, "up", directory], stdout=PIPE, stderr=PIPE, text=True) for _ in range(2)]
    outputs = [up.communicate(timeout=60) for up in ups]
    assert [up.returncode for up in ups] == [0, 0], outputs
    assert len(processes(stack.kafka.directory / "kafka")) == 1
    exports = subprocess.run([*CLI, "env", directory], capture_output=True, timeout=60, check=True, text=True).stdout
    show = f'{exports}printf "%s %s" "$LIVEDEX_KAFKA_BOOTSTRAP_SERVERS" "$LIVEDEX_DATABASE_URL"'
    shown = subprocess.run(["/bin/sh", "-c", show], capture_output=True, timeout=10, check=True, text=True).stdout
    addresses = stack.addresses()
    assert shown == f"{addresses.kafka_bootstrap_servers} {addresses.database_url}"
    assert all(pids(stack))


def test_database_is_what_livedex_needs(stack: Stack) -> None:
    """PostgreSQL 18 and pgvector 0.8.5, buffers for an HNSW index, durable, text rules independent of the host."""
    with psycopg.connect(stack.postgres.url) as connection:
        row = connection.execute("""
            SELECT current_setting('server_version_num')::int / 10000,
                   (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
                   pg_size_bytes(current_setting('shared_buffers')) >= 512 * 1024 * 1024,
                   current_setting('fsync'), current_setting('unix_socket_directories'),
                   current_setting('server_encoding'), current_setting('TimeZone'),
                   lower('ÄRGER'), to_tsvector('simple', 'ÄRGER—“Zitat”')::text""").fetchone()
    assert row == (18, "0.8.5", True, "on", "", "UTF8", "UTC", "ärger", "'zitat':2 'ärger':1")


def test_superuser_needs_the_password(stack: Stack) -> None:
    """Another user of the machine cannot become the superuser, and with it the one who started the server."""
    wrong = stack.postgres.url.replace(stack.postgres.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_broker_takes_the_largest_event(stack: Stack) -> None:
    """A record of 20 MiB, a text of 10 MiB escaped, goes through a topic as `livedex apply` makes it."""
    topic = {"num_partitions": 1, "configs": {"max.message.bytes": str(32 * 1024 * 1024)}}
    with KafkaAdminClient(bootstrap_servers=stack.kafka.bootstrap_servers) as admin:
        admin.create_topics({"large": topic}, wait_for_metadata=True)
    producer = KafkaProducer(bootstrap_servers=stack.kafka.bootstrap_servers, max_request_size=32 * 1024 * 1024)
    try:
        assert producer.send("large", bytes(20 * 1024 * 1024)).get(timeout=20).offset == 0
    finally:
        producer.close()


AS_NOBODY = """
import ctypes, os, sys
from pathlib import Path
from livedex.dev.postgres import privileges
from livedex.dev.stack import Stack
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # what is started here has no capability
stack = Stack(Path(sys.argv[1]))
try:
    stack.up()
    print(os.geteuid(), Path(f"/proc/{stack.postgres.daemon.pid}").stat().st_uid)
finally:
    stack.down()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="without root all the other tests are this one")
def test_ordinary_user_beside_another_stack(stack: Stack) -> None:
    """A user without any privilege runs a stack of his own while another one is up."""
    uid = 65534
    # This interpreter may be below a folder of root: the test's process may enter it, the servers may not.
    user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=+dac_override"]
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(resources.cache_dir(), Path(home) / "livedex")
        for path in [Path(home), *Path(home).rglob("*")]:
            os.chown(path, uid, uid)
        command = ["setpriv", *user, "--ambient-caps=+dac_override", sys.executable, "-c", AS_NOBODY, f"{home}/stack"]
        done = subprocess.run(
            command, env=os.environ | {"XDG_CACHE_HOME": home}, capture_output=True, text=True, timeout=90, check=False
        )
        assert (done.stdout, done.stderr) == (f"{uid} {uid}\n", "")
        assert processes(Path(home)) == []
    assert all(pids(stack))
