# Runtime Manager. `make` alone prints what there is.
# Everything runs in .venv, which is made on first use; PYTHON names the interpreter it is made with. It holds docker,
# psycopg, redis and what these need; linter, type checker and benches come to it with the targets that use them.
# Without an index: PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels. PY names an interpreter that has the three packages
# already, and then nothing is installed.

PYTHON ?= python3
VENV   := .venv
PY     ?= $(VENV)/bin/python

# Stamps: the three packages; what `lint`, `types` and the tests of the OpenAPI document need; what the benches need.
ifeq ($(PY),$(VENV)/bin/python)
STAMP   := $(VENV)/installed
TOOLS   := $(VENV)/tools
BENCHES := $(VENV)/benches
DOCTOR  := $(if $(wildcard $(PY)),$(PY),$(PYTHON))
else
DOCTOR  := $(PY)
export PYTHONPATH := $(CURDIR)
endif

# 1 skips the integration tests where no Docker daemon answers, `require` fails instead.
RTM_INTEGRATION ?= 1

# How many modules of the suite run side by side in integration-parallel: Docker starts few containers a second
# however many ask, so more than twice the processors gain nothing.
JOBS ?= $(shell echo $$(( $$(nproc) * 2 )))

# The tests start hundreds of processes, and without byte code each of them compiles the package again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help venv tools setup doctor demo run unit unit-product coverage pythons integration integration-harness integration-all integration-parallel integration-not-root stress soak year chaos crashes upgrade recovery simulate fuzz lint types test bench mutants protections clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

venv: $(STAMP) ## the virtual environment, redone when setup.cfg or pyproject.toml change

tools: $(TOOLS) ## ruff, mypy and what the tests of the OpenAPI document need, into the same environment

ifeq ($(PY),$(VENV)/bin/python)
$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older or missing: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "== python3-venv is missing: installing it"; \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-venv >/dev/null \
	    || { echo "as root: apt-get install python3-venv"; exit 1; }; }
	@$(PYTHON) -m venv $(VENV)
	@$(call install,docker psycopg redis,)
	@$(PY) -m harness.machine.requirements --link $(CURDIR)
	@touch $@

$(TOOLS): $(STAMP)
	@$(call install,the tools,dev)
	@touch $@

$(BENCHES): $(STAMP)
	@$(call install,what the benches need,bench)
	@touch $@
endif

# What setup.cfg lists: the packages that the project needs, or those of one of its extras.
define install
echo "== $(VENV): installing $(1)"; began=$$(date +%s); \
  $(PY) -m harness.machine.requirements $(2) > $(VENV)/requirements.txt \
  && $(PY) -m pip install -qq --disable-pip-version-check -r $(VENV)/requirements.txt \
  && echo "   done in $$(( $$(date +%s) - began )) s"
endef

setup: $(STAMP) ## Docker daemon and images, made or installed where missing
	@$(PY) -m harness.rtm up

doctor: ## what this machine has and lacks, with the remedy; needs Python alone
	@$(DOCTOR) -m harness.rtm doctor

demo: $(STAMP) ## one game through its whole life, on real services
	@$(PY) -m harness.rtm demo

run: $(STAMP) ## a Runtime Manager with everything it needs, until Ctrl-C
	@$(PY) -m harness.rtm run

unit: $(STAMP) unit-product ## quick tests, no Docker needed
	@env -u RTM_INTEGRATION $(PY) -m unittest discover -t . -s harness

unit-product: $(STAMP)
	@env -u RTM_INTEGRATION $(PY) -m unittest discover -t . -s rtmanager/tests
	@env -u RTM_INTEGRATION $(PY) -m unittest discover -t . -s reliability/tests
	@env -u RTM_INTEGRATION $(PY) -m unittest discover -t . -s bench/tests

coverage: $(TOOLS) ## branch coverage by the tests that need no services; its floor is in setup.cfg
	@$(PY) -m coverage erase
	@for each in rtmanager/tests reliability/tests harness; do \
	  env -u RTM_INTEGRATION $(PY) -m coverage run --append -m unittest discover -t . -s $$each || exit 1; done
	@$(PY) -m coverage report

# A shim of a version that is not enabled is no interpreter.
PYTHONS ?= $(foreach each,3.11 3.12 3.13 3.14,$(if $(shell python$(each) -c 'print(1)' 2>/dev/null),python$(each)))

pythons: ## quick tests on every Python from 3.11 that is installed; PYTHONS="python3.12 /path/to/python3.13" names some
	@set -e; for each in $(PYTHONS); do echo "== $$each"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$(basename $$each) PYTHON=$$each unit; done

integration: $(STAMP) integration-harness ## the suite, and the harness's own tests, on real services
	@RTM_INTEGRATION=$(RTM_INTEGRATION) $(PY) -m unittest discover -t . -s integration

integration-harness: $(STAMP) ## the harness's own tests and the Docker adapter's, on real services
	@RTM_INTEGRATION=$(RTM_INTEGRATION) $(PY) -m unittest discover -t . -s harness
	@RTM_INTEGRATION=$(RTM_INTEGRATION) $(PY) -m unittest discover -t . -s rtmanager/tests -p 'test_docker_runtime.py'

# The longest, which mostly wait, come first: whatever begins last has the processors to itself.
LONGEST := test_postgres_failing test_postgres_found test_docker_outage test_answers
MODULES := $(LONGEST) $(filter-out $(LONGEST),$(patsubst integration/%.py,%,$(wildcard integration/test_*.py)))
HARNESS := $(subst /,.,$(patsubst %.py,%,$(wildcard harness/tests/test_*.py harness/rtm/tests/test_*.py)))

integration-parallel: $(STAMP) ## the suite alone, its modules side by side in JOBS processes
	@notes=$$(mktemp -d); trap 'rm -rf "$$notes"' EXIT; \
	  RTM_INTEGRATION=$(RTM_INTEGRATION) RTM_IT_TIMING_DIR=$$notes $(PY) -m harness.runs.parallel --jobs $(JOBS) $(MODULES:%=integration.%) \
	    && { [ -z "$(RTM_IT_TIMING)" ] || $(PY) -m harness timing "$$notes"; }

integration-not-root: $(STAMP) ## the suite as a user who has CAP_CHOWN alone; TESTS=integration.test_lifecycle for some of it
	@RTM_INTEGRATION=$(RTM_INTEGRATION) $(PY) -m integration.support.not_root $(TESTS)

stress: $(STAMP) ## the suite ten times in random order, then twice at once; nothing may be left (50 minutes)
	@$(PY) -m reliability.stress

soak: $(STAMP) ## an hour of thirty games, two managers and random interference; SEED= repeats one
	@RTM_INTEGRATION=require RTM_SOAK_MINUTES=$(or $(MINUTES),60) RTM_SOAK_GAMES=$(or $(GAMES),30) RTM_SOAK_SEED=$(SEED) \
	  $(PY) -m unittest integration.test_soak

year: $(STAMP) ## a year of two million operations with retention: what grows, and what a start costs (OPERATIONS=, GAMES=)
	@RTM_INTEGRATION=require RTM_YEAR_OPERATIONS=$(or $(OPERATIONS),2000000) RTM_YEAR_GAMES=$(or $(GAMES),10000) \
	  $(PY) -m unittest integration.test_year

chaos: $(STAMP) ## seeded trouble for three managers and all that they need, judged by its history (MINUTES=6); SEED="1 2"
	@RTM_INTEGRATION=require $(PY) -m reliability.chaos $(SEED:%=--seed %) --minutes $(or $(MINUTES),6)

crashes: $(STAMP) ## the crash matrix: killed, or failed, at every point of every operation (half an hour)
	@RTM_INTEGRATION=require $(PY) -m reliability.crashes

# The last commit of version 0.1.
BEFORE = 86aab2b89d78

upgrade: $(STAMP) ## this release and the one before on one database, in turn and side by side (5 minutes); BEFORE= a commit or tag
	@RTM_INTEGRATION=require $(PY) -m reliability.upgrade $(BEFORE) $(SEED:%=--seed %)

recovery: $(STAMP) ## how soon all that is due is done after kills and after outages of a minute (20 minutes)
	@$(PY) -m bench recovery
	@RTM_INTEGRATION=require RTM_OUTAGE_GAMES=50 $(PY) -m unittest integration.test_docker_outage

simulate: $(STAMP) ## ten thousand seeded histories of a platform in trouble, in memory (4 minutes); SEED= shows one
	@$(PY) -m reliability.simulate $(if $(SEED),--seed $(SEED),--histories 10000)

fuzz: $(STAMP) ## seeded hostile input on real services; FUZZ="references entries" for some, SEED= repeats one, COUNT= shortens it
	@RTM_INTEGRATION=require $(PY) -m reliability.fuzz $(FUZZ) $(SEED:%=--seed %) $(COUNT:%=--count %)

lint: $(TOOLS) ## ruff
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(TOOLS) ## mypy, strict
	@$(PY) -m mypy

test: ## all of it, from a bare machine: what .ci/run runs; what mostly waits runs side by side
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target setup tools
	@$(MAKE) --no-print-directory --jobs 3 --output-sync=target RTM_INTEGRATION=require integration-all lint types unit-product

integration-all: $(STAMP)
	@RTM_INTEGRATION=$(RTM_INTEGRATION) $(PY) -m harness.runs.parallel --jobs $(JOBS) \
	  $(LONGEST:%=integration.%) $(HARNESS) rtmanager.tests.test_docker_runtime $(filter-out $(LONGEST:%=integration.%),$(MODULES:%=integration.%))

# Each is measured with nothing else going on, so one after the other; those of Docker come before those that probe, whose
# connections the kernel remembers for two minutes, and Docker goes through them.
BENCH = start profile burst calls harness path rest startup events watch idle growth

bench: $(BENCHES) ## ours side by side with other ways, into docs/generated/performance.md (ten minutes); BENCH="start path" for some
	@set -e; for each in $(BENCH); do $(PY) -m bench $$each; done
	@$(PY) -m bench page

mutants: $(STAMP) ## the manager broken on purpose in one place at a time: the suite has to notice
	@$(PY) -m reliability.mutants --quick

protections: $(STAMP) ## what keeps things from being lost taken out, one at a time: something has to notice (15 minutes)
	@$(PY) -m reliability.mutants --group protections --quick --jobs 3

clean: ## the virtual environment and every cache; images and the daemon stay (python -m harness down)
	@rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .ruff_cache .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
