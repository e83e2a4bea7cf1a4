# make reproduce | make test: each makes .venv and installs what it needs first.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: audit sbom reproduce test test-slow lint picture bench install clean

reproduce: $(STAMP)
	$(VENV)/bin/em-bench reproduce --preset tiny

test: $(STAMP)
	$(VENV)/bin/python -m pytest -m "not slow" $(PARALLEL)

test-slow: $(STAMP)
	$(VENV)/bin/python -m pytest -m slow $(PARALLEL)

lint: $(STAMP)
	$(VENV)/bin/ruff check em_bench tests benchmarks
	$(VENV)/bin/ruff format --check em_bench tests benchmarks
	$(VENV)/bin/mypy

# Who imports whom, into docs/architecture.md; the result's sentence, into README.md.
picture: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m docs.test_architecture_doc
	PYTHONPATH=tests $(VENV)/bin/python -m docs.test_readme

# All of them, or some: make bench BENCH="tiny evaluate"
BENCH ?= light_commands tiny evaluate judging optim train board sweep
bench: $(STAMP)
	for b in $(BENCH); do echo "== $$b"; $(VENV)/bin/python benchmarks/$$b.py || exit 1; done

# Known holes in what is pinned, and a bill of what is installed; tools of their own, in a folder of their own.
audit: $(VENV)/.tools
	$(VENV)/tools/bin/pip-audit --progress-spinner off --path $$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

sbom: $(VENV)/.tools
	$(VENV)/tools/bin/cyclonedx-py environment $(VENV)/bin/python --output-reproducible --of JSON -o sbom.json

$(VENV)/.tools: $(STAMP)
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet pip-audit==2.9.0 cyclonedx-bom==7.0.0
	touch $@

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25"
	$(VENV)/bin/python -m pip install -c constraints.txt torch==2.13.0
	$(VENV)/bin/python -m pip install -c constraints.txt -e ".[reproduce,pocket,test]"
# Beside the environment: PEFT imports it wherever it finds it, two seconds for every process. Its tests look here.
	$(VENV)/bin/python -m pip install --quiet --no-deps --target $(VENV)/quantized -c constraints.txt bitsandbytes
	touch $(STAMP)

clean:
	rm -rf $(VENV) em_bench_work
