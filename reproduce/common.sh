# What the scripts beside it share: how a run is started or gone on with, and which data sets there are. To be sourced with a script's arguments.

train() {  # name of the run, recipe, options
  local run=runs/$1 recipe=$2
  shift 2
  zoo train "$recipe" --simulate --out "$run" "$@" $([ -d "$run" ] && echo --resume)
}

[ $# -gt 0 ] || set -- cdl cost2100 inh
for set; do
  case $set in
    cdl | cost2100 | inh) ;;
    *)
      echo "unknown data set $set; there are cdl, cost2100 and inh" >&2
      exit 2
      ;;
  esac
done
mkdir -p runs stores
