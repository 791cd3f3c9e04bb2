#!/bin/sh
# The launcher of nvcc in a build: `keep-ptxas-report.sh nvcc … -o OBJECT` leaves what ptxas says of each
# kernel in OBJECT.ptxas, for scripts/check-cuda.sh --built, and shows the rest.
object=
before=
for argument; do
  [ "$before" != -o ] || object=$argument
  before=$argument
done
"$@" 2>"$object.ptxas"
status=$?
grep -v -e '^ptxas info' -e '^ *[0-9]* bytes stack frame' "$object.ptxas" >&2
exit $status
