"""MariaDB decides what is durable, and which rows a worker locks: it is asked, not believed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator

import pytest
from conftest import Handles
from contract import bodies, numbered

from imqueue import servers
from imqueue.backend import BackendError, Durability, Guarantees, Rejected, Within
from imqueue.backends import _mysql
from imqueue.backends.mysql import TAKE, MySQL
from imqueue.servers import External, Server, ServerError


@pytest.fixture(scope="module")
def server(obtain: Callable[[str, Durability], Server]) -> Server:
    found = obtain("mysql", Durability.DELAYED)
    if isinstance(found, External):
        pytest.skip("the server is not ours to change")
    return found


@pytest.fixture
def admin(server: Server) -> Iterator[_mysql.Session]:
    session = _mysql.Session(server.url)
    yield session
    session.do("SET GLOBAL innodb_flush_log_at_trx_commit = 2", "SET GLOBAL max_allowed_packet = 16777216")
    session.end()


@pytest.fixture
def handles(server: Server, admin: _mysql.Session) -> Iterator[Handles]:
    made = Handles(MySQL, lambda _: server.url, f"mysql-{uuid.uuid4().hex[:12]}")
    yield made
    for handle in made.opened:
        handle.close()
    for name in {each.queue for each in made.opened}:
        admin.do(f"DROP TABLE IF EXISTS {_mysql.quoted(name)}")


def waits(session: _mysql.Session) -> int:
    """How often anybody on this server has waited for a row."""
    return int(session.do("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")[0][1])


def test_a_setting_changed_behind_our_back_changes_the_guarantees(handles: Handles, admin: _mysql.Session) -> None:
    handle = handles()
    now = handle.guarantees
    assert (now.survives_kill, now.survives_power_loss) == (True, Within(1.0))

    admin.do("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
    now = handle.guarantees
    assert (now.survives_kill, now.survives_power_loss) == (Within(1.0), Within(1.0))

    admin.do("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    now = handle.guarantees
    assert (now.survives_kill, now.survives_power_loss) == (True, True)
    assert now.settings["innodb_flush_log_at_trx_commit"] == "1"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("innodb_flush_log_at_trx_commit = 1", "durability delayed was asked for; this server has flushed"),
        ("max_allowed_packet = 1048576", "max_allowed_packet=1048576; allowed: 16777216 and more"),
    ],
)
def test_open_refuses_a_server_with_another_promise(
    handles: Handles, admin: _mysql.Session, setting: str, told: str
) -> None:
    admin.do(f"SET GLOBAL {setting}")

    with pytest.raises(BackendError, match=told):
        handles()


LIKE_OURS = {
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_flush_log_at_timeout": "1",
    "innodb_doublewrite": "ON",
    "log_bin": "OFF",
    "sync_binlog": "0",
    "max_allowed_packet": "16777216",
    "wait_timeout": "28800",
    "version": "10.11.18-MariaDB",
}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": "5.5.5-10.5.29-MariaDB"}, "MariaDB 10.5.29-MariaDB is too old .*allowed: 10.6.0 and later"),
        ({"version": "5.7.44-log"}, "MySQL 5.7.44-log is too old .*allowed: 8.0.4 and later"),
        ({"innodb_doublewrite": "OFF"}, "fits no class .*innodb_doublewrite=OFF"),
        ({"log_bin": "ON"}, "fits no class .*log_bin=ON, sync_binlog=0"),
        ({"innodb_flush_log_at_trx_commit": "2"}, "flushed was asked for; this server has delayed"),
    ],
)
def test_a_server_that_is_too_old_or_flushes_less_is_refused(changed: dict[str, str], told: str) -> None:
    _mysql.refuse_unless(LIKE_OURS, Durability.FLUSHED)

    with pytest.raises(BackendError, match=told):
        _mysql.refuse_unless(LIKE_OURS | changed, Durability.FLUSHED)


def test_a_binary_log_that_is_not_flushed_and_idle_limits_are_told() -> None:
    def now(**changed: str) -> Guarantees:
        return _mysql.guarantees(LIKE_OURS | changed, url="mysql://far.example", polls="")

    assert now(log_bin="ON").survives_power_loss == Within(35.0)
    assert "assumed" in now(log_bin="ON").source
    assert now(log_bin="ON", sync_binlog="1").survives_power_loss is True
    assert now(innodb_doublewrite="OFF").survives_power_loss is False
    assert (now().lease_s, now(idle_write_transaction_timeout="60").lease_s) == (28800.0, 60.0)


def test_two_workers_hold_batches_side_by_side_and_nobody_waits(handles: Handles, admin: _mysql.Session) -> None:
    producer, one, two = handles(), handles(batch=10), handles(batch=10)
    # Few rows, so that the optimiser is tempted to scan them all, and enough that a scan would show below.
    producer.put(numbered(60))
    before = waits(admin)

    first, second, third = one.get(1.0), two.get(1.0), one.get(1.0)

    assert bodies([*first, *second, *third]) == numbered(30)
    for handle, held in ((two, second), (one, third), (one, first)):
        handle.ack(held)
    assert waits(admin) == before
    assert producer.depth() == 30


def test_get_reads_its_batch_by_the_primary_key_and_no_further(handles: Handles, admin: _mysql.Session) -> None:
    handle = handles(batch=10)
    handle.put(numbered(5000))
    take = TAKE.format(queue=_mysql.quoted(handle.queue), batch=10)

    plan = admin.do(f"EXPLAIN {take}")
    admin.do("FLUSH STATUS", take)
    read = {name: int(count) for name, count in admin.do("SHOW SESSION STATUS LIKE 'Handler_read%'")}

    assert plan[0][2:6] == (handle.queue, "range", "PRIMARY", "PRIMARY")
    assert len(plan) == 2
    assert "optimized away" in plan[1][-1]
    assert sum(read.values()) <= 12


@pytest.mark.parametrize(
    "shape",
    [
        "(n INT)",
        "(id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, body LONGBLOB NOT NULL) ENGINE = MyISAM",
        "(id BIGINT UNSIGNED NOT NULL PRIMARY KEY, body LONGBLOB NOT NULL)",
    ],
)
def test_a_table_of_another_shape_is_refused_and_left_untouched(
    handles: Handles, admin: _mysql.Session, shape: str
) -> None:
    name = _mysql.quoted(handles.queue)
    admin.do(f"CREATE TABLE {name} {shape}")
    before = admin.do(f"SHOW CREATE TABLE {name}")

    with pytest.raises(BackendError, match=r"is no queue \(.*left untouched"):
        handles()

    assert admin.do(f"SHOW CREATE TABLE {name}") == before


@pytest.mark.parametrize("name", ["`; DROP TABLE x; --", "%s {} ' \" \\ ö", "y" * 64])
def test_a_queue_may_have_any_name_that_a_table_may_have(handles: Handles, name: str) -> None:
    handle = handles(queue=name)
    handle.put([b"x", b""])

    taken = handle.get(1.0)
    handle.ack(taken)

    assert bodies(taken) == [b"x", b""]


@pytest.mark.parametrize("name", ["", "y" * 65, "nul\0", "space ", "\U0001f407"])
def test_any_other_name_is_refused_by_a_sentence(handles: Handles, name: str) -> None:
    handle = MySQL(handles.url(Durability.DELAYED), name, durability=Durability.DELAYED, batch=1)

    with pytest.raises(BackendError, match=re.escape("cannot be a table; allowed: 1 to 64 characters")):
        handle.open()


def test_a_batch_beyond_one_statement_is_put_as_a_whole(handles: Handles) -> None:
    handle = handles(batch=3)
    large = [bytes([number]) * (3 << 20) for number in range(3)]
    handle.put(large)

    taken = handle.get(1.0)
    handle.ack(taken)

    assert bodies(taken) == large


def test_a_put_is_not_retried_when_the_connection_is_killed(handles: Handles, admin: _mysql.Session) -> None:
    handle = handles()
    others = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'imqueue' AND ID <> CONNECTION_ID()"
    for (number,) in admin.do(others):
        admin.do(f"KILL {number}")

    with pytest.raises(BackendError, match="uncertain"):
        handle.put([b"x"])
    with pytest.raises(Rejected, match="was not tried"):
        handle.put([b"x"])
    handle.open()

    assert handle.depth() == 0


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (
            "mariadbd  Ver 10.5.29-MariaDB for debian",
            r"mysql 10.5.29-MariaDB is too old; 10.6 or newer is needed; `apt-get",
        ),
        ("mysqld  Ver 8.4.5 for Linux on x86_64", "does not run here: it says"),
    ],
)
def test_a_mariadb_that_is_too_old_is_missing_with_the_version_needed(
    told: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imqueue.servers.mysql.find", lambda *_: "/usr/sbin/mariadbd")
    monkeypatch.setattr("imqueue.servers.mysql.output", lambda *_: told)
    monkeypatch.setattr(servers.load("mysql"), "runs_as", lambda: None)

    assert re.search(reason, servers.load("mysql").missing() or "")


def test_versions_of_mysql_itself_have_their_own_minimum() -> None:
    too_old = servers.load("mysql").too_old

    assert too_old("5.7.44-log") == "MySQL 5.7.44-log is too old; 8.0.4 or newer is needed"
    assert [too_old(each) for each in ("8.0.36", "9.1.0", "10.11.18-MariaDB", "11.8.2-MariaDB")] == [None] * 4


def test_only_our_user_gets_in_and_settings_are_as_told(server: Server) -> None:
    session = _mysql.Session(server.url)
    users = session.do("SELECT User FROM mysql.user")
    live: dict[str, str] = dict(session.do("SHOW VARIABLES"))
    session.end()

    assert sorted(users) == [("imqueue",), ("mariadb.sys",)]
    told = server.settings()
    same = ("innodb_flush_log_at_trx_commit", "innodb_flush_method", "innodb_doublewrite", "performance_schema")
    assert {name: live[name] for name in same} == {name: told[name] for name in same}
    assert live["log_bin"] == "OFF"
    assert int(live["innodb_buffer_pool_size"]) == 256 << 20
    assert live["tx_isolation"] == "READ-COMMITTED"
    with pytest.raises(ServerError, match="Access denied"):
        servers.load("mysql").ask(re.sub(r"//.*@", "//root:@", server.url), 5.0)
