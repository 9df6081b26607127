"""What a workspace cannot see, reach or become."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.processes import ProcessTable
from libs.runtime.local.records import load_run
from libs.runtime.local.runtime import LocalRuntime
from tests.runtime_contract.workspaces import Workspaces, collect_logs, make_spec, opened, read_all, read_all_errors


@pytest.fixture
def service_port() -> Iterator[int]:
    """A service of the stack on the host's loopback, answering `secret`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.sendall(b"secret")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield int(server.getsockname()[1])


def command_lines() -> list[bytes]:
    """What everybody on this machine may read of every process."""
    found = []
    with ProcessTable.of_host() as table:
        for info in table.living():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{info.pid}/cmdline").read_bytes())
    return found


async def test_the_user_is_nobody_special(workspaces: Workspaces, as_root: None) -> None:
    ref = await workspaces.start()
    _, out, _ = await workspaces.run(ref, "id -u; id -G; grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    uid, groups, *rest = out.decode().splitlines()
    assert int(uid) >= 20_000
    assert groups == uid
    assert {line.split()[0]: int(line.split()[1], 16) for line in rest} == {
        **dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"), 0),
        "NoNewPrivs:": 1,
    }


async def test_no_process_inside_keeps_capabilities(workspaces: Workspaces, as_root: None) -> None:
    ref = await workspaces.start()
    # What starts with the workspace may still be on its way to being nobody.
    settle = "for _ in $(seq 200); do grep -qs 'CapEff:.*[1-9a-f]' /proc/[0-9]*/status || break; sleep 0.05; done"
    _, out, _ = await workspaces.run(ref, f"{settle}; grep -hs CapEff /proc/[0-9]*/status")
    assert {line.split()[1] for line in out.decode().splitlines()} == {"0" * 16}


async def test_two_environments_are_two_users(workspaces: Workspaces, as_root: None) -> None:
    first, second = await workspaces.start(), await workspaces.start()
    uids = {(await workspaces.run(ref, "id -u"))[1] for ref in (first, second)}
    assert len(uids) == 2


async def test_the_hosts_processes_are_invisible(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    _, out, _ = await workspaces.run(ref, "ls /proc | grep -c '^[0-9]*$'")
    assert int(out) < 10
    _, out, _ = await workspaces.run(ref, "cat /proc/[0-9]*/cmdline")
    assert b"pytest" not in out


async def test_other_users_secrets_do_not_show(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path, as_root: None
) -> None:
    ref = await workspaces.start(make_spec(variables={"TOKEN": "swordfish"}, startup_command="sleep 1000"))
    _, out, _ = await workspaces.run(ref, "cat /proc/1/environ /proc/2/environ /proc/[0-9]*/cmdline")
    assert b"swordfish" not in out

    assert [line for line in command_lines() if b"swordfish" in line] == []
    holding = [
        path for path in (runtime_dir / "state").rglob("*") if path.is_file() and b"swordfish" in path.read_bytes()
    ]
    assert [path.name for path in holding] == ["spec.json"]
    assert holding[0].stat().st_mode & 0o077 == 0
    assert (runtime_dir / "state").stat().st_mode & 0o077 == 0


async def test_the_hosts_files_are_out_of_reach(workspaces: Workspaces, runtime_dir: Path) -> None:
    ref, other = await workspaces.start(), await workspaces.start()
    await workspaces.run(other, "echo theirs > file; chmod -R a+rwX .")
    hidden = [runtime_dir, runtime_dir / "state", runtime_dir / "workspaces" / other.environment_id]
    hidden += [
        Path("/root"),
        Path("/home"),
        Path("/etc/shadow"),
        Path("/etc/ssh"),
        Path("/var/lib"),
        Path("/sys"),
        Path.cwd(),
    ]
    for path in hidden:
        code, _, _ = await workspaces.run(ref, ["test", "-e", str(path)])
        assert code == 1, path
    _, out, _ = await workspaces.run(ref, "ls -A /; find / -xdev -name spec.json 2>/dev/null")
    usual = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp", "usr", "var"}
    assert set(out.decode().split()) <= usual | {"workspace"}


async def test_nothing_of_the_system_can_be_written(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    for path in (
        "/usr/x",
        "/etc/x",
        "/x",
        "/run/x",
        "/bin/sh",
        "/etc/passwd",
        "/etc/devpocket/init",
        "/proc/sys/kernel/hostname",
    ):
        code, _, _ = await workspaces.run(ref, f"echo x >> {path}")
        assert code != 0, path
    for path in ("/tmp/x", "/workspace/x", "/var/tmp/x", "/dev/shm/x", "/dev/null"):
        code, _, err = await workspaces.run(ref, f"echo x > {path}")
        assert code == 0, err


async def test_devices_are_only_the_harmless_ones(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    _, out, _ = await workspaces.run(
        ref, "for f in /dev/* /dev/*/*; do test -b $f && echo $f; test -c $f && echo $f; done"
    )
    names = {name for name in out.decode().split() if not re.match(r"/dev/(pts/|ptmx|std|fd/)", name)}
    assert names == {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}


async def test_the_stacks_ports_are_out_of_reach(workspaces: Workspaces, service_port: int) -> None:
    ref = await workspaces.start()
    probe = (
        "import socket, sys\n"
        "for host in sys.argv[2:]:\n"
        "    try:\n"
        "        print(host, socket.create_connection((host, int(sys.argv[1])), 3).recv(9))\n"
        "    except OSError as error:\n"
        "        print(host, type(error).__name__)\n"
    )
    hosts = ["127.0.0.1", "localhost", "10.0.2.2", "0.0.0.0"]
    code, out, err = await workspaces.run(ref, ["/usr/bin/python3", "-c", probe, str(service_port), *hosts])
    if code == 127:
        pytest.skip("needs /usr/bin/python3 to probe ports from inside")
    assert code == 0, err
    assert b"secret" not in out
    assert len(out.splitlines()) == len(hosts)


async def test_the_cloud_metadata_address_has_no_route(workspaces: Workspaces, as_root: None) -> None:
    ref = await workspaces.start(make_spec(startup_command="echo connected"))
    await collect_logs(workspaces.runtime.logs(ref, follow=True), "connected")
    probe = "import socket; socket.create_connection(('169.254.169.254', 80), 3)"
    code, _, err = await workspaces.run(ref, ["/usr/bin/python3", "-c", probe])
    if code == 127:
        pytest.skip("needs /usr/bin/python3 to probe addresses from inside")
    assert b"No route to host" in err or b"unreachable" in err, (code, err)


async def test_addresses_that_are_blocked_have_no_route_and_others_do(runtime_dir: Path, as_root: None) -> None:
    runtime = LocalRuntime(runtime_dir, IsolationPolicy.REQUIRE, ("203.0.113.0/24", "10.0.0.0/8"))
    await runtime.open()
    try:
        workspaces = Workspaces(runtime)
        ref = await workspaces.start(make_spec(startup_command="echo connected"))
        await collect_logs(runtime.logs(ref, follow=True), "connected")
        probe = (
            "import socket, sys\n"
            "for host in sys.argv[1:]:\n"
            "    try:\n"
            "        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((host, 9)); print('open')\n"
            "    except OSError: print('closed')\n"
        )
        # The last two are the sandbox's own name server, within a blocked range, and an address outside.
        hosts = ["203.0.113.7", "10.1.2.3", "169.254.169.254", "10.0.2.3", "198.51.100.1"]
        code, out, err = await workspaces.run(ref, ["/usr/bin/python3", "-c", probe, *hosts])
        if code == 127:
            pytest.skip("needs /usr/bin/python3 to probe addresses from inside")
        assert out.decode().split() == ["closed", "closed", "closed", "open", "open"], err
    finally:
        await runtime.stop_all(grace_seconds=0)
        await runtime.close()


async def test_what_the_user_sets_reaches_no_privileged_process(
    runtime: LocalRuntime, workspaces: Workspaces, as_root: None
) -> None:
    """A library that every process of root on the way in would load, did it see LD_PRELOAD."""
    variables = {"LD_PRELOAD": "/workspace/evil.so", "LD_LIBRARY_PATH": "/workspace", "ENV": "/workspace/env.sh"}
    ref = await workspaces.start(make_spec(variables=variables))
    await workspaces.run(ref, "echo 'id -u >> /workspace/who' > env.sh; printf garbage > evil.so")

    async with opened(await runtime.exec(ref, ["id", "-u"], tty=False)) as stream:
        assert int(await read_all(stream)) >= 20_000
        complaints = (await read_all_errors(stream)).decode().splitlines()

    # The user's own program complains about its broken library; none that ran before it does.
    assert complaints
    assert {line.partition(":")[0] for line in complaints} == {"ERROR"}
    assert len(complaints) == 1
    _, out, _ = await workspaces.run(ref, "cat /workspace/who")
    assert out == b""


async def test_no_descriptor_of_the_service_leaks(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        _, out, _ = await workspaces.run(ref, "ls -l /proc/$$/fd")
    finally:
        os.close(read_end)
        os.close(write_end)
    numbers = {int(number) for number in re.findall(r"(\d+) ->", out.decode())}
    assert numbers == {0, 1, 2}


async def test_the_sandbox_has_its_own_namespaces(
    runtime: LocalRuntime, workspaces: Workspaces, runtime_dir: Path
) -> None:
    ref = await workspaces.start(make_spec(name="Grüße an_alle!"))
    run = load_run(runtime_dir / "state" / ref.environment_id)
    assert run is not None
    for kind in ("pid", "mnt", "ipc", "uts", "net", "cgroup"):
        inside = os.stat(f"/proc/{run.init_pid}/ns/{kind}").st_ino
        assert inside != os.stat(f"/proc/self/ns/{kind}").st_ino
        _, out, _ = await workspaces.run(ref, f"stat -Lc %i /proc/self/ns/{kind}")
        assert int(out) == inside
    _, out, _ = await workspaces.run(ref, "cat /proc/sys/kernel/hostname; cat /etc/hostname")
    assert out == b"gr-e-an-alle\ngr-e-an-alle\n"


async def test_terminals_inside_terminals_work(workspaces: Workspaces) -> None:
    ref = await workspaces.start()
    code, out, err = await workspaces.run(ref, "script -qec tty /dev/null </dev/null")
    if code == 127:
        pytest.skip("needs script(1)")
    assert re.fullmatch(rb"/dev/pts/\d+\r?\n", out), err


async def test_a_user_who_kills_everything_keeps_the_environment(
    runtime: LocalRuntime, workspaces: Workspaces, as_root: None
) -> None:
    ref = await workspaces.start()
    await workspaces.run(ref, "kill -9 -1")
    assert (await workspaces.run(ref, "echo still here"))[1] == b"still here\n"
