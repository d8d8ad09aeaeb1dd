"""The daemon under start-stop-daemon, as an init script on bare metal calls it."""

import contextlib
import json
import os
import pwd
import signal
import subprocess

from check import PATIENCE, alive, read, status_of, wait_until, write
from daemon import BASE, ask_admin

# This run's network is its own, so the usual ports are free.
UDP_PORT, ADMIN_PORT = 8125, 8126


class Service:
    """What the script's `start`, `status` and `stop` would run. Return exit codes."""

    def __init__(self, program, directory, *options):
        self.program = program
        self.pidfile = os.path.join(directory, "statsd.pid")
        self.config = write(
            os.path.join(directory, "statsd.json"),
            json.dumps(
                {
                    **BASE,
                    "servers": [{"server": "udp", "address": "127.0.0.1", "port": UDP_PORT}],
                    "mgmt_port": ADMIN_PORT,
                }
            ),
        )
        self.arguments = ["-d", "-p", self.pidfile, *options, self.config]

    def control(self, *arguments):
        # Output is read to its end: a daemon that kept it open would hang every script that does the same.
        done = subprocess.run(
            ["start-stop-daemon", "--pidfile", self.pidfile, "--exec", self.program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2 * PATIENCE,
        )
        self.said = (done.stdout + done.stderr).decode()
        return done.returncode

    def start(self, *options):
        return self.control("--start", *options, "--", *self.arguments)

    def status(self):
        return self.control("--status")

    def stop(self, *options):
        return self.control("--stop", "--retry", f"TERM/{PATIENCE}/KILL/5", *options)

    def pid(self):
        return int(read(self.pidfile) or 0)

    @contextlib.contextmanager
    def ended_at_last(self):
        try:
            yield self
        finally:
            pid = self.pid()
            if pid and alive(pid):
                os.kill(pid, signal.SIGKILL)
                wait_until(f"end of {pid}", lambda: not alive(pid))


def healthy():
    try:
        return ask_admin(ADMIN_PORT, "health").strip()
    except OSError as error:
        return str(error)


def part(checks, options):
    directory = os.path.join(options.work, "init")
    os.makedirs(directory)
    with Service(options.statsd, directory).ended_at_last() as service:
        as_root(checks, service)
    with Service(options.statsd, directory, "-u", "nobody").ended_at_last() as service:
        as_nobody(checks, service)


def as_root(checks, service):
    checks.equal("init script: status before the start is `not running`", service.status(), 3)
    if not checks.report(service.start("--oknodo") == 0, "init script: start", service.said):
        return
    # No waiting here: the parent returns when the daemon is up.
    checks.equal("init script: healthy once start returned", healthy(), "health: up")
    checks.equal("init script: status", service.status(), 0)
    pid = service.pid()
    fields = status_of(pid)
    checks.equal("init script: a child of the init process", fields.get("PPid"), "1")
    session = int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[3])
    checks.report(session != os.getsid(0), "init script: in a session of its own", f"session {session}")
    checks.equal(
        "init script: stdin, stdout and stderr",
        [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)],
        ["/dev/null"] * 3,
    )

    checks.equal("init script: started twice with --oknodo", service.start("--oknodo"), 0)
    checks.equal("init script: started twice without", service.start(), 1)
    checks.equal("init script: still the first one", service.pid(), pid)

    # Past start-stop-daemon, whose own look at the pidfile would hide ours.
    again = subprocess.run(
        [service.program, *service.arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
    )
    checks.equal("init script: a second instance is refused", again.returncode, 3)
    checks.equal("init script: and leaves the pidfile alone", service.pid(), pid)
    checks.equal("init script: and the first one is healthy", healthy(), "health: up")

    service.pidfile, ours = service.pidfile + ".other", service.pidfile
    service.arguments[2] = service.pidfile
    checks.equal("init script: a taken port is the exit code of the start", service.start(), 3)
    checks.report(
        f":{UDP_PORT}" in service.said or f":{ADMIN_PORT}" in service.said,
        "init script: and the message names the address",
        service.said,
    )
    service.pidfile = service.arguments[2] = ours

    checks.equal("init script: stop", service.stop(), 0)
    checks.report(not alive(pid), "init script: nothing left after the stop", f"{pid} lives")
    checks.holds("init script: status after the stop", (status := service.status()) in (1, 3), status)
    checks.equal("init script: stopped twice with --oknodo", service.stop("--oknodo"), 0)
    checks.equal("init script: stopped twice without", service.stop(), 1)

    checks.equal("init script: start after a stop", service.start(), 0)
    pid = service.pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(f"end of {pid}", lambda: not alive(pid))
    checks.equal("init script: start over a stale pidfile", service.start(), 0)
    checks.report(service.pid() != pid and alive(service.pid()), "init script: with a new pid", service.pid())
    checks.equal("init script: stop again", service.stop(), 0)


def as_nobody(checks, service):
    nobody = pwd.getpwnam("nobody")
    if not checks.report(service.start() == 0, "init script, -u nobody: start", service.said):
        return
    fields = status_of(service.pid())
    checks.equal("init script, -u nobody: user ids", fields["Uid"].split(), [str(nobody.pw_uid)] * 4)
    checks.equal("init script, -u nobody: group ids", fields["Gid"].split(), [str(nobody.pw_gid)] * 4)
    checks.equal("init script, -u nobody: groups", fields["Groups"].split(), [str(nobody.pw_gid)])
    checks.equal("init script, -u nobody: healthy", healthy(), "health: up")
    checks.equal("init script, -u nobody: status", service.status(), 0)
    checks.equal("init script, -u nobody: stop", service.stop(), 0)
    checks.equal("init script, -u nobody: start once more", service.start(), 0)
    checks.equal("init script, -u nobody: and stop", service.stop(), 0)
