#!/bin/sh
# distributed 2026.8.0, cloudpickle 3.1.3: Client.run sends a function of a module that is to be
# pickled by value, and Client.submit does not.
#
# A module is known to the client alone, which has told cloudpickle to pickle what is of it by value
# (register_pickle_by_value). Client.run of the module's function works on a worker that has no such
# module, so one would have guessed that Client.submit and Client.map of the same function do. They
# fail to be deserialized: they send a task, and only where what is pickled is itself of a registered
# module is cloudpickle asked; for all else plain pickle comes first, and names the module. The same
# function as the argument of a lambda arrives, since plain pickle fails at the lambda.
set -eu
folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet distributed==2026.8.0 cloudpickle==3.1.3
mkdir "$folder/client" "$folder/elsewhere"
echo 'def double(x): return 2 * x' >"$folder/client/known_to_client.py"
cat >"$folder/client/program.py" <<'END'
import logging, sys
import cloudpickle, distributed
import known_to_client

logging.disable(logging.CRITICAL)
cloudpickle.register_pickle_by_value(known_to_client)
double = known_to_client.double
with distributed.Client(scheduler_file=sys.argv[1], timeout=60) as client:
    client.wait_for_workers(1, timeout=60)
    for name, step in {
        "run": lambda: [*client.run(double, 3).values()],
        "submit": lambda: client.submit(double, 3).result(timeout=60),
        "map": lambda: client.gather(client.map(double, [3])),
        "submit of a lambda": lambda: client.submit(lambda f: f(3), double).result(timeout=60),
    }.items():
        try:
            print(f"{name}:", step())
        except Exception as error:
            print(f"{name}:", type(error).__name__, *str(error).split()[:3])
END
cd "$folder/elsewhere"
"$folder/venv/bin/dask" scheduler --host 127.0.0.1 --port 0 --no-dashboard \
    --scheduler-file "$folder/where" 2>/dev/null &
pids=$!
"$folder/venv/bin/dask" worker --scheduler-file "$folder/where" --no-dashboard 2>/dev/null &
pids="$pids $!"
cd "$folder/client"
"$folder/venv/bin/python" program.py "$folder/where" >"$folder/said" 2>/dev/null
cat "$folder/said"
for line in \
    "run: [6]" \
    "submit: RuntimeError Error during deserialization" \
    "map: RuntimeError Error during deserialization" \
    "submit of a lambda: 6"; do
    grep -qxF "$line" "$folder/said" || { echo "something else was expected" && exit 1; }
done
