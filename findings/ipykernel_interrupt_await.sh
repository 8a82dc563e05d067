#!/bin/sh
# ipykernel 7.4.0: an interrupt of a cell that awaits is heard when what it awaits is over.
#
# A cell awaits asyncio.sleep(8), and the kernel is sent SIGINT after one second, as by the button. One
# would have guessed that it is cancelled at once, as time.sleep(8) is. The signal's handler cancels the
# task, but wakes nothing: the event loop goes on waiting until its next timer, and the cell ends as
# interrupted, 8 seconds after its start.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ipykernel==7.4.0 jupyter_client==8.10.0
cat >"$folder/program.py" <<'END'
import sys, threading, time
from jupyter_client.manager import KernelManager

manager = KernelManager()
manager.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
client.execute_interactive("import asyncio, time", timeout=60)
for cell in "time.sleep(8)", "await asyncio.sleep(8)":
    threading.Timer(1, manager.interrupt_kernel).start()
    began = time.monotonic()
    reply = client.execute_interactive(cell, timeout=60, output_hook=lambda message: None)
    late = time.monotonic() - began > 6
    print(cell, reply["content"]["ename"], "late" if late else "at once")
manager.shutdown_kernel(now=True)
END
"$folder/venv/bin/python" "$folder/program.py" >"$folder/said" 2>/dev/null
cat "$folder/said"
for line in "time.sleep(8) KeyboardInterrupt at once" "await asyncio.sleep(8) .* late"; do
    grep -q "^$line" "$folder/said" || { echo "something else was expected" && exit 1; }
done
