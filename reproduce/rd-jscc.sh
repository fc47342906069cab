#!/usr/bin/env bash
# The released rd-jscc models, from nothing: data sets, training, measuring, tables. About two hours of one CPU core, with one thread:
#     OMP_NUM_THREADS=1 bash reproduce/rd-jscc.sh cdl cost2100 inh
# Stores go to stores/, runs to runs/, models to zoo/weights/. A run that is stopped goes on when the script is given again.
set -euo pipefail
cd "$(dirname "$0")/.."

. reproduce/common.sh

finish() {  # data set
  [ -d "runs/klt-jscc-$1" ] || zoo train klt-jscc --data "stores/$1.zarr" --out "runs/klt-jscc-$1"
  zoo release "runs/rd-jscc-$1/models/rd-jscc-$1-k32" "runs/klt-jscc-$1/models/klt-jscc-$1-k32" --data "stores/$1.zarr" --samples 5000 --into zoo/weights
}

[ -d stores/uplink.zarr ] || datagen regenerate manifests/datasets/inh-open-uplink-v1.json --out stores/uplink.zarr
for set; do
  [ -d "stores/$set.zarr" ] || datagen "$set" --out "stores/$set.zarr"
  echo "scenario = \"$set\"" > "runs/$set.toml"
  case $set in
    cdl)  # delays do not wander, and hardly any energy lies behind the first 16: a smaller network will do
      small="--set codec.align=false --set codec.taps=16 --set codec.width=384 --set codec.hidden=512"
      train rd-jscc-cdl-first rd-jscc --set training.samples=200000 $small --max-minutes 13
      train rd-jscc-cdl rd-jscc --set training.samples=200000 $small --set training.init=runs/rd-jscc-cdl-first --set training.learning_rate=1e-3 --max-minutes 11.5
      finish cdl
      python benchmarks/jscc.py stores/cdl.zarr stores/uplink.zarr --readme README.md --picture benchmarks/results/snr.png
      ;;
    cost2100)
      train rd-jscc-cost2100-first rd-jscc --simulate-recipe runs/cost2100.toml --set training.samples=300000 --max-minutes 26
      train rd-jscc-cost2100 rd-jscc --simulate-recipe runs/cost2100.toml --set training.samples=300000 --set training.seed=1 \
        --set training.init=runs/rd-jscc-cost2100-first --set training.learning_rate=1e-3 --max-minutes 19
      finish cost2100
      python benchmarks/jscc.py stores/cost2100.zarr stores/uplink.zarr --scenario cost2100 --samples 1000 --readme README.md --picture benchmarks/results/snr-cost2100.png
      ;;
    inh)
      train rd-jscc-inh rd-jscc --simulate-recipe runs/inh.toml --set training.samples=200000 --max-minutes 14.5
      finish inh
      [ -d stores/band.zarr ] || datagen inh --name inh-open-band --train 0 --val 0 --test 2000 --keep-band 667 --shard-samples 512 --out stores/band.zarr
      python benchmarks/jscc.py stores/inh.zarr stores/uplink.zarr --scenario inh --band stores/band.zarr --samples 1000 --readme README.md --picture benchmarks/results/snr-inh.png
      ;;
  esac
done
