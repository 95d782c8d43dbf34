# The commands of the README. What a command does stands in scripts/.
.PHONY: help demo test crashtest chaostest bench bench-json bench-growth bench-peers clean

help:
	@echo "make demo                 build a release and process a satellite scene, with its trace"
	@echo "make demo FAULT=crash     the same, and one tile's process dies in the middle"
	@echo "make demo IMAGE=path      the same, on a JPEG or PNG of yours"
	@echo "make test                 everything that is checked: tests, sanitizers, fuzzers, rules, the installed package"
	@echo "make crashtest            kills a recording process a thousand times, and after every instruction"
	@echo "make chaostest            four runners that are killed, stopped and lied to about the time, on 500 jobs"
	@echo "make bench                what everything costs on this machine, in one table; ROWS=\"span.5attr ...\" for some"
	@echo "make bench-json           the same, one JSON object a line"
	@echo "make bench-growth         whether a span costs more with more threads, open spans or undelivered telemetry: curves"
	@echo "make bench-peers          the same work by other SDKs (Go, Python, Rust: from their registries), beside Waymark's"
	@echo "make clean                remove what was built, and the demo's output"

demo:
	@scripts/install-deps demo
	@scripts/build release waymark scene_tiles
	@FAULT="$(FAULT)" IMAGE="$(IMAGE)" scripts/demo

test:
	@scripts/install-deps test
	@scripts/test

crashtest:
	@scripts/install-deps test
	@scripts/crashtest

chaostest:
	@scripts/install-deps test
	@scripts/chaostest

bench:
	@scripts/install-deps test
	@scripts/bench $(ROWS)

bench-json:
	@scripts/install-deps test >&2
	@scripts/bench --json $(ROWS)

bench-growth:
	@scripts/install-deps bench
	@scripts/bench-growth $(ROWS)

bench-peers:
	@scripts/install-deps test
	@scripts/bench-peers

clean:
	rm -rf build out
