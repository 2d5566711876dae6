#!/usr/bin/env bash
# All measurements of a GPU in eight minutes, on a machine that has Python and nothing else.
#
#   bash benchmarks/gpu.sh OUTPUT [WHEELS] [words for gpu.py, such as --small]
#
# OUTPUT: the folder for results.jsonl, logs and table.md. WHEELS: a folder of wheels, `wheels/` by
# default; it is used only where torch or another package is missing, and no network is. Fill it on
# a machine that has a network:
#
#   python -m pip download --dest wheels --requirement <(python benchmarks/requirements.py)
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
began=$(date +%s)
output=${1:?usage: bash benchmarks/gpu.sh OUTPUT [WHEELS] [words for gpu.py]}
shift
wheels=$root/wheels
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then wheels=$1; shift; fi
seconds=${SECONDS_IN_ALL:-480}
export PYTHONPATH=$root HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false
python=${PYTHON:-python3}
needed="torch transformers datasets accelerate pydantic filelock psutil yaml sklearn pandas"
has_all() {
  "$1" -c "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in sys.argv[1:]))" $needed
}

if ! has_all "$python"; then
  if [ ! -d "$wheels" ]; then
    echo "error: one of $needed is missing, and there are no wheels in $wheels." >&2
    exit 2
  fi
  mkdir -p "$output"
  "$python" "$root/benchmarks/requirements.py" > "$output/requirements.txt"
  if ! "$python" -m venv "$output/venv"; then
    echo "error: $python makes no environment (on Debian and Ubuntu: apt install python3-venv)." >&2
    exit 2
  fi
  # What the machine has stays in use, that of another environment too, and only the rest is
  # installed. Bytecode is made when it is needed.
  packages=$("$output/venv/bin/python" -c "import site; print(site.getsitepackages()[0])")
  "$python" -c "import site; print(*site.getsitepackages(), sep='\n')" > "$packages/machine.pth"
  timeout $((seconds / 2)) "$output/venv/bin/python" -m pip install --quiet --no-index --no-compile \
    --find-links "$wheels" --requirement "$output/requirements.txt"
  code=$?
  python=$output/venv/bin/python
  if [ $code = 124 ]; then
    echo "error: the wheels were not installed in $((seconds / 2)) seconds, half of all." >&2
    exit 2
  elif ! has_all "$python"; then
    echo "error: the wheels in $wheels are not enough." >&2
    exit 2
  fi
fi
left=$((seconds - $(date +%s) + began))
exec "$python" "$root/benchmarks/gpu.py" --output "$output" --seconds "$left" "$@"
