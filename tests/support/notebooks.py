"""A kernel of ipykernel's, and cells for it."""

import json
import re
import sys


class Cell:
    """What became of a cell.

    Attributes: `reply`, the kernel's answer; `outputs`, what was shown, as (type, content).
    """

    def __init__(self, reply, outputs):
        self.reply = reply
        self.outputs = outputs

    @property
    def status(self):
        return self.reply["status"]

    @property
    def text(self):
        """What it printed, or showed of errors in it, without colours."""
        parts = [
            content.get("text", "\n".join(content.get("traceback", [])))
            for _, content in self.outputs
        ]
        return re.sub(r"\x1b\[[\d;]*m", "", "".join(parts)).strip()

    def shown(self, form):
        """What it displayed in a form, such as "text/html"."""
        data = [content["data"] for _, content in self.outputs if "data" in content]
        return [one[form] for one in data if form in one]


class Notebook:
    def __init__(self):
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager()
        self.manager.kernel_cmd = [
            sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"
        ]  # fmt: skip
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def cell(self, source, when_busy=None, **options):
        """Run a cell to its end; `when_busy` is called with each of its outputs."""
        outputs = []

        def keep(message):
            outputs.append((message["msg_type"], message["content"]))
            if when_busy:
                when_busy(message)

        options = {"timeout": 60, "output_hook": keep, **options}
        reply = self.client.execute_interactive(source, **options)
        return Cell(reply["content"], outputs)

    def run(self, source):
        """What a cell prints or shows of errors in it; its own error is the test's."""
        cell = self.cell(source)
        assert cell.status == "ok", json.dumps(cell.reply, default=str)
        return cell.text

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
