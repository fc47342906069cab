#!/usr/bin/env bash
# The released gd-csi models, from nothing: data sets, training, measuring, tables. About five hours of one CPU core, most of them training,
# with one thread each so that two may run side by side:
#     OMP_NUM_THREADS=1 bash reproduce/gd-csi.sh cdl & OMP_NUM_THREADS=1 bash reproduce/gd-csi.sh cost2100 inh
# Stores go to stores/, runs to runs/, models to zoo/weights/. A run that is stopped goes on when the script is given again.
set -euo pipefail
cd "$(dirname "$0")/.."

. reproduce/common.sh

for set; do
  case $set in
    cdl)  # learnt codebooks: the five rates share encoder and denoiser; hardly any energy lies behind the first 16 delays
      [ -d stores/cdl.zarr ] || datagen cdl --out stores/cdl.zarr
      train gd-csi-cdl gd-csi-multirate --set training.samples=300000 --set codec.taps=16 --max-minutes 112
      zoo release runs/gd-csi-cdl/models/*b --data stores/cdl.zarr --samples 10000 --into zoo/weights
      python benchmarks/models.py --readme README.md --picture benchmarks/results/rd.png
      ;;
    cost2100)  # one denoiser behind the payloads of profile-code at all rates
      [ -d stores/cost2100.zarr ] || datagen cost2100 --out stores/cost2100.zarr
      echo 'scenario = "cost2100"' > runs/cost2100.toml
      train gd-csi-cost2100 gd-csi-profile --simulate-recipe runs/cost2100.toml --set training.samples=240000 --set training.steps=14000
      zoo release runs/gd-csi-cost2100/models/*b --data stores/cost2100.zarr --samples 10000 --into zoo/weights
      python benchmarks/models.py --scenario cost2100 --readme README.md --picture benchmarks/results/rd-cost2100.png
      ;;
    inh)  # likewise, in the office
      [ -d stores/inh.zarr ] || datagen inh --out stores/inh.zarr
      echo 'scenario = "inh"' > runs/inh.toml
      train gd-csi-inh gd-csi-profile --simulate-recipe runs/inh.toml --set training.samples=200000 --set training.steps=8000
      zoo release runs/gd-csi-inh/models/*b --data stores/inh.zarr --samples 10000 --into zoo/weights
      python benchmarks/models.py --scenario inh --readme README.md --picture benchmarks/results/rd-inh.png
      ;;
  esac
done
