#!/usr/bin/env bash
# Makes everything under results/ with `bench` commands alone. Every command goes on where it was stopped, so this may be
# killed and started again at any time, on a CPU or a GPU.
#
#   results/make.sh mnist              the paper's recipe
#   EPOCHS=15 results/make.sh cifar10  with as many epochs as there is time for; rows say so
#
# DATA: folder of <name>.npz. SEEDS: training seeds. EXAMPLES: images under the paper's protocols; FEW: under the costly
# ones. BENCH: how the program is called.
set -euo pipefail
dataset=${1:?which data set: mnist, svhn, cifar10 or cifar100}
bench=${BENCH:-python -m bench}
examples=${EXAMPLES:-0} few=${FEW:-500} seeds=${SEEDS:-0,1,2} data=${DATA:-data}
common=(--dataset "$dataset" --data-dir "$data")

case $dataset in
mnist) twin=fc-linear recipe= ;;
*) twin=resnet20 recipe='+standard[autocast=true]' ;;
esac
ibp='ibp-mondeq+ibp[lr=3e-3,epochs=40]'
if [[ -n ${EPOCHS:-} ]]; then
    recipe="+standard[epochs=$EPOCHS${recipe:+,autocast=true}]"
    ibp=${ibp/epochs=40/epochs=$EPOCHS}
fi
plain="deq$recipe,deq-orth$recipe,lyadeq-no-orth$recipe,lyadeq$recipe"
rows=$plain,$ibp
[[ $dataset == mnist ]] || rows=$plain,$twin$recipe,$ibp

for seed in ${seeds//,/ }; do
    $bench train --train-seed "$seed" --models "$twin$recipe,$rows" --dataset "$dataset" --data-dir "$data"
done
for protocol in paper paper-normalized; do
    $bench run "${common[@]}" --seeds "$seeds" --models "$rows" --protocol "$protocol" --examples "$examples"
done
first=${seeds%%,*}
audited=$rows
if [[ $dataset == mnist ]]; then
    $bench audit "${common[@]}" --train-seed "$first" --models "$rows" --eps 8 --examples "$few"
else
    $bench run "${common[@]}" --train-seed "$first" --models "$rows" --protocol adaptive --eps 8 --examples "$few"
    $bench diagnose "${common[@]}" --train-seed "$first" --models "$rows" --eps 2,4,6,8 --examples 100
fi
$bench run "${common[@]}" --train-seed "$first" --models "$rows" --protocol standard --eps 8 --examples "$few"
if [[ $dataset == mnist && -z ${EPOCHS:-} ]]; then
    readouts='lyadeq[readout=step],lyadeq[readout=output],lyadeq[readout=features]'
    certified='ibp-mondeq[eps=0.1]+ibp[lr=3e-3,epochs=40]'
    audited=$plain,$certified,$ibp
    hardened='deq+pgd-at[eps=0.1,step=0.025,epochs=2],deq+trades[eps=0.1,step=0.02,epochs=2]'
    hardened+=',lyadeq+trades[eps=0.1,step=0.02,epochs=2]'
    $bench run "${common[@]}" --train-seed "$first" --models "$rows" --protocol adaptive --eps 2,4,6,8 --examples 1000
    for seed in ${seeds//,/ }; do
        $bench run "${common[@]}" --train-seed "$seed" --models "$rows" --protocol adaptive --eps 8 --examples 1000
    done
    $bench run "${common[@]}" --models "$readouts" --examples "$examples"
    $bench run "${common[@]}" --models "$plain" --eps 2,4,6,8,10,12,14,16,18,20 --examples 2000
    $bench run "${common[@]}" --models "deq,lyadeq,$hardened" --eps 25.5 --attacks 'pgd[steps=100,alpha=0.01]' --examples 1000
    $bench audit "${common[@]}" --models "$certified" --eps 8 --examples "$few"
    $bench run "${common[@]}" --models "$certified" --protocol standard --eps 8 --examples "$few"
    for protocol in standard adaptive; do
        $bench run "${common[@]}" --models "deq,lyadeq,$certified" --protocol $protocol --eps 25.5 --examples "$few"
        network='resnet20+standard[epochs=2,autocast=true]'
        $bench run "${common[@]}" --models "$network" --protocol $protocol --eps 25.5 --examples "$few"
    done
elif [[ $dataset == cifar10 ]]; then
    $bench run "${common[@]}" --train-seed "$first" --models "deq$recipe,lyadeq$recipe" --protocol adaptive --eps 2 --examples "$few"
    hardened='resnet20+pgd-at[epochs=2,autocast=true],lyadeq+pgd-at[epochs=2,autocast=true]'
    for protocol in paper paper-normalized; do
        $bench run "${common[@]}" --models "$hardened" --protocol "$protocol" --examples "$examples"
    done
    $bench run "${common[@]}" --models "$hardened" --protocol standard --eps 8 --examples "$few"
fi
$bench compact
for kind in 3 4 curve solver images; do
    shown=(--models "$rows")
    case $kind,$dataset in
    4,mnist) shown=(--models "$plain" --examples 2000) ;;
    4,*) shown=(--models "$plain,$twin$recipe" --eps 2,4,6,8 --examples 2000) ;;
    curve,*) shown=(--models "deq$recipe,lyadeq$recipe") ;;
    esac
    $bench figure "$kind" "${common[@]}" "${shown[@]}" || true  # says what it lacks
done
mkdir -p results/tables
$bench table 1 --data-dir "$data" --format markdown > results/tables/table1.md
$bench table 1 --data-dir "$data" --format latex > results/tables/table1.tex
[[ $dataset != mnist ]] || $bench audit "${common[@]}" --no-run --models "$audited" --format markdown > results/tables/audit.md
$bench report
