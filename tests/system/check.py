"""What every part uses: recording checks, waiting for conditions, and the processes a part starts.

Times are seconds. Nothing here knows what is being tested.
"""

import contextlib
import os
import signal
import subprocess
import time

PATIENCE = 15  # for things that normally take well below a second


class Failed(Exception):
    """A condition did not come true; the part that waited for it cannot go on."""


def excerpt(text, limit=1500):
    """Both ends of a long text on one line."""
    text = "\\n".join(text.strip().splitlines())
    return text if len(text) <= limit else f"{text[: limit // 2]} […] {text[-limit // 2 :]}"


class Checks:
    """Prints one line for each check and counts them."""

    def __init__(self):
        self.passed = self.failed = 0

    def report(self, good, what, why=""):
        if good:
            self.passed += 1
            print(f"ok   {what}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL {what}: {excerpt(str(why))}", flush=True)
        return good

    def equal(self, what, got, expected):
        return self.report(got == expected, what, f"got {got!r}, expected {expected!r}")

    def holds(self, what, condition, got):
        """`condition`, shown with the value it was taken from."""
        return self.report(bool(condition), what, f"got {got!r}")

    def ends_well(self, what, process):
        """SIGTERM, to which the exit code is 0."""
        code = process.end()
        return self.report(code == 0, f"{what}: exit code after SIGTERM", f"{code}; it said: {read(process.log)}")

    def eventually(self, what, probe, expected, patience=PATIENCE):
        """The value of `probe()` becomes `expected`. Once something has failed there is less patience."""
        last = [None]
        if self.failed:
            patience = min(patience, 1)

        def there():
            last[0] = probe()
            return last[0] == expected

        with contextlib.suppress(Failed):
            wait_until(what, there, patience)
        return self.equal(what, last[0], expected)

    @contextlib.contextmanager
    def part(self, name):
        """An error inside is one failed check, and the next part runs all the same."""
        print(f"# {name}", flush=True)
        began = time.monotonic()
        try:
            yield
        except (Failed, OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
            self.report(False, name, f"{type(error).__name__}: {error}")
        print(f"# {name}: {time.monotonic() - began:.1f} s", flush=True)


def wait_until(what, condition, patience=PATIENCE):
    """Returns the first true value of `condition()`."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {patience} s")
        time.sleep(0.02)


def wait_for_file(path, text="", patience=PATIENCE):
    """Waits until the file holds `text`; returns all of it."""

    def holds():
        content = read(path)
        return content if content and text in content else None

    return wait_until(f"{text!r} in {path}", holds, patience)


def read(path):
    """The file's text, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Process:
    """A child in the foreground, ended when the `with` block is left. Its output goes to `log`."""

    def __init__(self, arguments, log, **popen):
        self.log = log
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **popen
            )
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def ended(self):
        return self.child.poll() is not None

    def end(self, with_signal=signal.SIGTERM):
        """Ends the process, by force where it does not listen; returns its exit code, negative for a signal."""
        if not self.ended():
            self.child.send_signal(with_signal)
        try:
            return self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


def wait_for_ready(process, probe, patience=PATIENCE):
    """Waits for `probe()`; an early end of the process fails at once, with its output."""

    def ready():
        value = probe()
        if not value and process.ended():
            raise Failed(f"{process.child.args[0]} ended with {process.child.returncode}: {read(process.log)}")
        return value

    return wait_until(f"{process.child.args[0]} is ready", ready, patience)


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


def status_of(pid):
    """The fields of /proc/PID/status."""
    lines = read(f"/proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
