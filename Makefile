# caf: build, check, demo, install. `make help` lists the targets.
#   SAN=1      build with AddressSanitizer and UndefinedBehaviorSanitizer, in build/san
#   FUZZ=1     build for libFuzzer with clang, in build/fuzz
#   CC=clang   the other compiler (give it a BUILD of its own)
#   BUILD=DIR  where everything that is made goes
.DEFAULT_GOAL := all

VERSION  := 0.1.0
PREFIX   ?= /usr/local
DESTDIR  ?=
BUILD    ?= build$(if $(SAN),/san)$(if $(FUZZ),/fuzz)
DATADIR  := $(PREFIX)/share/caf
LIBEXEC  := $(PREFIX)/libexec/caf
SYSCONF  ?= /etc/caf

PACKAGES := libevent_core libpq msgpack openssl hiredis jansson inih
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Werror
HARDEN   := -fPIE -fstack-protector-strong
SANITIZE := -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
ifdef FUZZ
override CC := clang
OPTIMISE := -O1 $(SANITIZE) -fsanitize=fuzzer-no-link
LINKSAN  := -fsanitize=address,undefined,fuzzer
else ifdef SAN
OPTIMISE := -O1 $(SANITIZE)
LINKSAN  := -fsanitize=address,undefined
else
OPTIMISE := -O2
HARDEN   += -D_FORTIFY_SOURCE=3
endif
CFLAGS   ?= -g
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(OPTIMISE) $(CFLAGS) -I. -I$(BUILD)/gen \
             -DCAF_VERSION='"$(VERSION)"' -DCAF_DATADIR='"$(DATADIR)"' -DCAF_SYSCONF='"$(SYSCONF)"' \
             $(shell pkg-config --cflags $(PACKAGES))
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(LINKSAN) $(LDFLAGS)
LIBS     := $(shell pkg-config --libs $(PACKAGES))

# ---- what is made of what ----------------------------------------------------------------------
# A program is its main file and a library of everything else in its part, so that unit tests link the same objects.
PROGRAMS := keeper frontd frontd-worker registryd auditd eventd cafctl

MAIN_keeper        := frontd/keeper_main.c
MAIN_frontd        := frontd/supervisor_main.c
MAIN_frontd-worker := frontd/worker_main.c
MAIN_registryd     := registryd/main.c
MAIN_auditd        := auditd/main.c
MAIN_eventd        := eventd/main.c
MAIN_cafctl        := cafctl/main.c
MAINS := $(foreach p,$(PROGRAMS),$(MAIN_$(p)))

library = $(filter-out $(MAINS),$(wildcard $(1)))
SOURCES_common        := $(call library,common/*.c proto/*.c)
SOURCES_keeper        := $(call library,frontd/keeper*.c frontd/tls_signature.c)
SOURCES_frontd        := $(call library,frontd/supervisor*.c) \
                         frontd/options.c frontd/metrics.c frontd/address.c frontd/identity.c frontd/spiffe.c \
                         frontd/tls_material.c frontd/tls_signature.c
SOURCES_frontd-worker := $(filter-out frontd/keeper% frontd/supervisor%,$(call library,frontd/*.c))
SOURCES_registryd     := $(call library,registryd/*.c)
SOURCES_auditd        := $(call library,auditd/*.c)
SOURCES_eventd        := $(call library,eventd/*.c)
SOURCES_cafctl        := $(call library,cafctl/*.c)

objects   = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
STATEMENTS := $(patsubst sql/%.sql,$(BUILD)/gen/%_sql.h,$(wildcard sql/*.sql))
ARCHIVES := $(foreach p,$(PROGRAMS),$(BUILD)/lib/$(p).a)
BINARIES := $(addprefix $(BUILD)/bin/,$(PROGRAMS))
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

LOAD := $(BUILD)/bench/load
FLOOD := $(BUILD)/bench/flood

FORCE:
.PHONY: FORCE all tests help deps demo bench check check-long fuzz lint format docs install clean
.SECONDARY:

all: $(BINARIES) ## build every program into $(BUILD)/bin
tests: $(if $(FUZZ),$(FUZZ_TARGETS),$(UNIT_TESTS) $(LOAD) $(FLOOD)) ## build the unit tests and the load generators (FUZZ=1: the fuzz targets)

$(BUILD)/gen/%_sql.h: sql/%.sql sql/embed.awk
	@mkdir -p $(@D)
	awk -f sql/embed.awk $< > $@.new && mv $@.new $@

# What objects are compiled with: when it changes (PREFIX, CFLAGS, the compiler), they are made again.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS)' > $@

$(BUILD)/obj/%.o: %.c Makefile $(BUILD)/flags | $(STATEMENTS)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/lib/common.a: $(call objects,$(SOURCES_common)) Makefile
	@mkdir -p $(@D)
	rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

define program
$(BUILD)/lib/$(1).a: $(call objects,$(SOURCES_$(1))) Makefile
	@mkdir -p $$(@D)
	rm -f $$@ && $$(AR) rcs $$@ $$(filter %.o,$$^)

$(BUILD)/bin/$(1): $(call objects,$(MAIN_$(1))) $(BUILD)/lib/$(1).a $(BUILD)/lib/common.a
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_LDFLAGS) $$^ -o $$@ $$(LIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(ARCHIVES) $(BUILD)/lib/common.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $< $(ARCHIVES) $(BUILD)/lib/common.a -o $@ $(LIBS) $(shell pkg-config --libs check)

$(BUILD)/tests/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(ARCHIVES) $(BUILD)/lib/common.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $< $(ARCHIVES) $(BUILD)/lib/common.a -o $@ $(LIBS) -lhttp_parser

$(LOAD): $(call objects,$(wildcard tests/bench/load*.c)) Makefile
$(FLOOD): $(call objects,tests/bench/flood.c) Makefile
$(LOAD) $(FLOOD):
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(filter %.o,$^) -o $@ $(LIBS)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# ---- what people run ---------------------------------------------------------------------------
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

deps: ## install the Debian packages of ./dependencies that are missing
	@dev/deps

demo: deps ## the story: an agent, over real mTLS, becomes a row that nobody else can take
	@$(MAKE) --no-print-directory all
	@dev/demo

bench: deps ## how fast caf is, with nginx beside it; SECONDS=10 makes each of its runs longer (default: 2)
	@$(MAKE) --no-print-directory all $(LOAD)
	@tests/bench/run $(if $(filter-out file,$(origin SECONDS)),--seconds $(SECONDS))

check: deps ## every test, under the sanitizers; ends in "N passed, N failed"
	@$(MAKE) --no-print-directory all $(FLOOD)
	@$(MAKE) --no-print-directory SAN=1 all tests
	@$(MAKE) --no-print-directory FUZZ=1 tests
	@tests/run

SECONDS ?= 60
fuzz: deps ## libFuzzer on every parser, SECONDS=60 each; TARGET=name: that one alone
	@$(MAKE) --no-print-directory FUZZ=1 tests
	@tests/fuzz/run $(SECONDS) $(TARGET)

check-long: deps ## the tests that take minutes each: faults under load, floods, scanners
	@$(MAKE) --no-print-directory all $(FLOOD)
	@$(MAKE) --no-print-directory SAN=1 all
	@tests/run --long

lint: deps ## clang-format, clang-tidy, shellcheck, both compilers: no warnings
	@dev/lint

format: ## let clang-format lay the C files out
	clang-format -i $$(git ls-files '*.c' '*.h')

docs: all ## write docs/METRICS.md from the programs' tables
	dev/metrics-page $(BUILD) > docs/METRICS.md.new && mv docs/METRICS.md.new docs/METRICS.md

install: all ## install into $(DESTDIR)$(PREFIX), units and samples with it
	install -d $(DESTDIR)$(LIBEXEC) $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(DATADIR)/sql/migrations
	install -m 0755 $(filter-out %/cafctl,$(BINARIES)) $(DESTDIR)$(LIBEXEC)
	install -m 0755 $(BUILD)/bin/cafctl $(DESTDIR)$(PREFIX)/bin
	install -m 0644 sql/*.sql $(DESTDIR)$(DATADIR)/sql
	install -m 0644 sql/migrations/*.sql $(DESTDIR)$(DATADIR)/sql/migrations
	systemd/install '$(DESTDIR)' '$(PREFIX)' '$(LIBEXEC)' '$(SYSCONF)'

clean: ## remove what was made
	rm -rf build
