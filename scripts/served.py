"""A `demeanor serve` that a script has started, for scripts that start one."""

import subprocess
import time


class Failed(Exception):
    """What was expected and what came instead."""


class Served:
    """Waits for the line `ready http://...`; `stop` ends it."""

    def __init__(self, command, log, seconds, environment=None):
        """`log` is the path of a file for what the server says; it may take so many seconds until it is ready."""
        self.started = time.monotonic()
        self.log = open(log, "w+", encoding="utf-8")
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=self.log)
        self.url = self.wait(seconds)
        self.ready_seconds = time.monotonic() - self.started

    def said(self):
        with open(self.log.name, encoding="utf-8") as log:
            return log.read()

    def wait(self, seconds):
        while time.monotonic() - self.started < seconds:
            for line in self.said().splitlines():
                if line.startswith("ready"):
                    return line.split()[1]
            if self.process.poll() is not None:
                raise Failed(f"the server ended with {self.process.returncode}: {self.said()[-600:]}")
            time.sleep(0.05)
        self.stop()
        raise Failed(f"the server is not ready after {seconds} s: {self.said()[-600:]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
