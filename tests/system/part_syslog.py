"""syslog, a real rsyslogd on a private /dev/log: tag, pid, facility, level, and that its restart is survived."""

import os
import subprocess

from check import Process, read, wait_for_file, wait_for_ready, wait_until, write
from daemon import READY, Daemon
from graphite import FakeGraphite

# What the private /dev offers beside the log socket; a bind mount works where mknod is not allowed.
DEVICES = ["null", "zero", "full", "random", "urandom"]
CONF = """
module(load="imuxsock" SysSock.Name="/dev/log" SysSock.RateLimit.Interval="0")
template(name="fields" type="string"
    string="%%programname%% %%procid%% %%syslogfacility-text%% %%syslogseverity-text%% %%syslogtag%%%%msg%%\\n")
action(type="omfile" file="%s" template="fields")
"""


def private_dev(directory):
    """Mounts a /dev of our own in the mount namespace of this run."""
    os.makedirs(directory)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "statsd-test", directory], check=True)
    for name in DEVICES:
        path = write(os.path.join(directory, name), "")
        subprocess.run(["mount", "--bind", f"/dev/{name}", path], check=True)
    subprocess.run(["mount", "--rbind", directory, "/dev"], check=True)


class Rsyslogd(Process):
    def __init__(self, directory):
        self.out = os.path.join(directory, "messages")
        conf = write(os.path.join(directory, "rsyslog.conf"), CONF % self.out)
        pidfile = os.path.join(directory, "rsyslogd.pid")
        log = os.path.join(directory, "rsyslogd.log")
        super().__init__(["/usr/sbin/rsyslogd", "-n", "-f", conf, "-i", pidfile], log)
        wait_for_ready(self, lambda: os.path.exists("/dev/log"))


def part(checks, options):
    directory = os.path.join(options.work, "syslog")
    private_dev(os.path.join(directory, "dev"))
    with FakeGraphite() as graphite:
        config = {
            "log": {"backend": "syslog", "application": "mystatsd", "level": "LOG_NOTICE"},
            "dumpMessages": True,
            "graphiteHost": "127.0.0.1",
            "graphitePort": graphite.port,
        }
        log_lines(checks, options.statsd, directory, config)


def log_lines(checks, program, directory, config):
    first = Rsyslogd(directory)
    with first, Daemon(program, directory, config) as daemon:
        daemon.wait_ready(where=first.out)

        def line_with(text):
            wait_for_file(first.out, text)
            return next(line for line in read(first.out).splitlines() if text in line)

        pid = str(daemon.pid)
        fields = line_with(READY).split(maxsplit=5)
        checks.equal("syslog: program name", fields[0], "mystatsd")
        checks.equal("syslog: pid", fields[1], pid)
        checks.equal("syslog: facility", fields[2], "local0")
        checks.equal("syslog: tag", fields[4], f"mystatsd[{pid}]:")
        checks.report(fields[5].startswith(READY), "syslog: the ready line is the message", fields[5])
        checks.holds("syslog: the ready line also says the ports", {"udp", "admin"} <= set(daemon.ports), fields[5])

        daemon.udp("good.before:1|c")
        checks.equal("syslog: level of a line", line_with("good.before").split()[3], "notice")
        daemon.udp("broken.line")
        bad = line_with("Bad line: ")
        checks.report('in msg "broken.line"' in bad, "syslog: a bad line is shown", bad)
        # As in the original, where a bad line has no level of its own.
        checks.equal("syslog: facility and level of a bad line", bad.split()[2:4], ["local0", "notice"])
        checks.equal("syslog: stdout stays empty", read(daemon.log), "")

        first.end()
        wait_until("rsyslogd to take its socket away", lambda: not os.path.exists("/dev/log"))
        daemon.udp("good.meanwhile:1|c")
        health = daemon.admin("health")
        checks.report("health: up" in health, "syslog: the daemon answers while rsyslogd is away", health)
        with Daemon(program, directory, config, name="early") as early, Rsyslogd(directory):
            daemon.udp("good.after:1|c")
            for name in ("good.meanwhile", "good.after"):
                fields = line_with(name).split()
                checks.equal(f"syslog: {name} of rsyslogd's restart", fields[:4], ["mystatsd", pid, "local0", "notice"])
            ready = line_with(f"mystatsd[{early.pid}]: {READY}")
            checks.equal("syslog: ready line of a daemon started before rsyslogd", ready.split()[1], str(early.pid))
            checks.ends_well("syslog", daemon)
