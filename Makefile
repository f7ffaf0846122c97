# Two commands matter: `make demo` and `make test`. Both make the virtual environment they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow docs notebooks looks mutants check kernels bench bench-gpu models findings account clean

demo: $(VENV)/installed
	$(BIN)/cos analyze patching --out runs/demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow" --durations=20

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m slow --durations=20

# the site of docs/, for reading from disk; nothing is fetched, and a warning is an error
docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

# what the notebooks of examples/ show, made again
notebooks: $(VENV)/installed-test
	$(BIN)/python tests/notebooks.py

# small pictures of a page by which the tests see that its looks are as they were: after a change of its style that is meant
looks: $(VENV)/installed-test
	$(BIN)/python tests/looks.py

# mistakes made on purpose in a copy of the tree, each with the test that must catch it
mutants: $(VENV)/installed-test
	$(BIN)/python tests/mutants.py

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --doctest-modules src/cos_interp

# the tests that compare numbers, under other kernels than this processor's best ones
kernels: $(VENV)/installed-test
	OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 $(BIN)/python -m pytest -n 2 -m "not slow"
	OPENBLAS_CORETYPE=Nehalem ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX $(BIN)/python -m pytest -n 2 -m "not slow"

bench: $(VENV)/installed
	$(BIN)/python -W ignore -m benchmarks

bench-gpu: $(VENV)/installed
	$(BIN)/python benchmarks/gpu.py 14B 1.3B --tokens 32760 7800

# three seeds of one recipe on items that no rule has seen, at the experiments' own sizes. Each run continues where it was stopped, and is not repeated while
# model, rules and settings are the same; twins are the same for all three seeds and run once. Seed 0's items have been seen by rules that were changed
FINDINGS = $(BIN)/cos analyze all --confirm --seed 1 --model organism:$(1) --out runs/findings/$(1)
findings: $(VENV)/installed
	$(call FINDINGS,seed1)
	$(call FINDINGS,seed2) --like runs/findings/seed1
	$(call FINDINGS,seed3) --like runs/findings/seed1
	$(call FINDINGS,young) --like runs/findings/seed1 --only ensemble,seeds,self-correction,commitment
	$(BIN)/cos report findings runs/findings/seed1 runs/findings/seed2 runs/findings/seed3 --opening docs/findings.txt \
		--numbers docs/findings.json --out docs/findings.md
	$(BIN)/cos report findings runs/findings/young --opening docs/findings/young.txt --out docs/findings/young.md

# where a plan comes from: every part on three seeds, on place, in the joint and the half trained model; the same items as above
PARTS = posterior circuit steering
ASKED = $(BIN)/cos analyze $(1) --confirm --seed 1 --out runs/account/$(strip $(2)) --model organism:$(3)
account: $(VENV)/installed
	set -e; for model in seed1 seed2 seed3 joint young; do \
		twins=$$(case $$model in seed*) echo 2;; *) echo 0;; esac); \
		$(call ASKED,seed-choice,seed-choice-$$model,$$model) --items 125 --twins $$twins; \
		for part in $(PARTS); do $(call ASKED,$$part,$$part-$$model,$$model) --twins $$twins; done; done
	set -e; for model in seed1 seed2 seed3; do \
		$(call ASKED,circuit,circuit-place-$$model,$$model) --task place; \
		$(call ASKED,steering,steering-place-$$model,$$model) --task place --check-pairs 44; done
	$(call ASKED,circuit,circuit-occlusion-seed1,seed1) --task occlusion --check-pairs 30
	$(BIN)/cos report account $(foreach part,posterior seed-choice circuit steering,$(foreach model,seed1 seed2 seed3 joint young,runs/account/$(part)-$(model))) \
		$(foreach part,circuit steering,$(foreach model,seed1 seed2 seed3,runs/account/$(part)-place-$(model))) runs/account/circuit-occlusion-seed1 \
		--opening docs/plan.txt --out docs/plan.md --trained organism:young=4000 --trained organism:seed1=12000

models: $(VENV)/installed-test
	$(BIN)/python -m cos_interp.interp.check.matrix docs/models.md

# torch first, by its pin: any other way pulls the CUDA build, several GB, onto a CPU machine
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; run make with PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) runs/demo docs/_build
