/* registryd's table of agents: whose entry is whose, what may be forgotten, which look-ups count,
 * and which heartbeat values are still to be written. */
#include "registryd/cache.h"

#include "tests/unit/suite.h"

static struct cache cache;

static void open_cache(void)
{
    cache = (struct cache){.max_agents = 4};
}

static void close_cache(void)
{
    cache_free(&cache);
    ck_assert_ptr_null(cache.by_key);
    ck_assert_ptr_null(cache.by_use);
    ck_assert_ptr_null(cache.dirty);
    ck_assert_uint_eq(cache.dirty_count, 0);
}

static struct str text_of(char letter)
{
    static char letters[256];

    letters[(unsigned char)letter] = letter;
    return (struct str){&letters[(unsigned char)letter], 1};
}

/* The agent of tenant "t" with a SPIFFE ID of one letter. */
static struct cache_agent *get(char letter)
{
    return cache_get(&cache, STR("t"), text_of(letter));
}

static int compare_letters(const void *a, const void *b)
{
    return *(const char *)a - *(const char *)b;
}

/* Which of a to z are there, without using them. */
static const char *present(void)
{
    static char found[27];
    struct cache_agent *agent, *next;
    size_t count = 0;

    HASH_ITER(hh, cache.by_key, agent, next)
    {
        found[count++] = cache_spiffe_id(agent).ptr[0];
    }
    found[count] = '\0';
    qsort(found, count, 1, compare_letters);
    return found;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static const struct {
    struct str tenant_id, spiffe_id;
} keys[] = {
    {STR("a"), STR("b/c")}, {STR("a/b"), STR("c")}, {STR("ab"), STR("/c")}, {STR("a"), STR("bc")},
    {STR("ab"), STR("c")},  {STR("a"), STR("b")},   {STR("b"), STR("a")},   {STR("aa"), STR("a")},
    {STR("a"), STR("aa")},  {STR("A"), STR("b/c")}, {STR("a"), STR("B/c")},
};

START_TEST(no_split_of_the_same_text_is_the_same_agent)
{
    struct cache_agent *agents[COUNT_OF(keys)];

    cache.max_agents = 100;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        ck_assert_ptr_null(cache_find(&cache, keys[i].tenant_id, keys[i].spiffe_id));
        agents[i] = cache_get(&cache, keys[i].tenant_id, keys[i].spiffe_id);
        for (size_t k = 0; k < i; k++)
            ck_assert_ptr_ne(agents[i], agents[k]);
    }
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        ck_assert_ptr_eq(cache_get(&cache, keys[i].tenant_id, keys[i].spiffe_id), agents[i]);
        ck_assert_ptr_eq(cache_find(&cache, keys[i].tenant_id, keys[i].spiffe_id), agents[i]);
        ck_assert(str_equal(cache_tenant_id(agents[i]), keys[i].tenant_id));
        ck_assert(str_equal(cache_spiffe_id(agents[i]), keys[i].spiffe_id));
        for (size_t k = 0; k < i; k++)
            ck_assert(!str_equal(cache_key(agents[i]), cache_key(agents[k])));
    }
}
END_TEST

START_TEST(a_key_is_copied_and_may_be_part_of_a_longer_text)
{
    char tenant_id[] = "acme-and-more", spiffe_id[] = "spiffe://td/a-and-more";
    struct cache_agent *agent =
        cache_get(&cache, (struct str){tenant_id, 4}, (struct str){spiffe_id, 13});

    memset(tenant_id, 'x', sizeof(tenant_id));
    memset(spiffe_id, 'x', sizeof(spiffe_id));
    ck_assert_ptr_eq(cache_find(&cache, STR("acme"), STR("spiffe://td/a")), agent);
    ck_assert_str_eq(cache_tenant_id(agent).ptr, "acme"); /* each part ends with a NUL too */
    ck_assert_str_eq(cache_spiffe_id(agent).ptr, "spiffe://td/a");
}
END_TEST

START_TEST(a_new_entry_knows_nothing)
{
    struct cache_agent *agent = get('a');

    ck_assert_int_eq(agent->state, AGENT_UNKNOWN);
    ck_assert(!agent->dirty && !agent->looking_up && !agent->waiters);
    ck_assert_ptr_null(agent->agent_id);
}
END_TEST

/* ---- what may be forgotten ------------------------------------------------------------------- */

START_TEST(the_least_recently_used_goes_first)
{
    for (char letter = 'a'; letter <= 'd'; letter++)
        get(letter);
    get('a');
    cache_find(&cache, STR("t"), STR("b"));
    get('e');
    ck_assert_str_eq(present(), "abde");
    get('f');
    ck_assert_str_eq(present(), "abef");
    get('g');
    ck_assert_str_eq(present(), "befg");
}
END_TEST

static struct cache_waiter *somebody(void)
{
    static char place;

    return (struct cache_waiter *)(void *)&place; /* the cache only asks whether there is one */
}

static void need(struct cache_agent *agent, int how)
{
    if (how == 0)
        cache_note_heartbeat(&cache, agent, 1, STR_ABSENT, STR_ABSENT);
    else if (how == 1)
        agent->looking_up = true;
    else
        agent->waiters = somebody();
}

static void need_no_more(struct cache_agent *agent, int how)
{
    if (how == 0)
        cache_note_written(&cache, agent);
    agent->looking_up = false;
    agent->waiters = NULL;
}

START_TEST(what_is_needed_stays_and_others_go_for_it)
{
    struct cache_agent *needed = get('a');

    need(needed, _i);
    for (char letter = 'b'; letter <= 'z'; letter++) {
        get(letter);
        ck_assert_uint_le(strlen(present()), cache.max_agents);
    }
    ck_assert_str_eq(present(), "axyz");
    ck_assert_ptr_eq(get('a'), needed);
    need_no_more(needed, _i);
    for (char letter = 'b'; letter <= 'e'; letter++)
        get(letter);
    ck_assert_str_eq(present(), "bcde");
}
END_TEST

START_TEST(when_all_are_needed_the_table_grows_and_shrinks_again)
{
    for (char letter = 'a'; letter <= 'z'; letter++)
        need(get(letter), _i);
    ck_assert_str_eq(present(), "abcdefghijklmnopqrstuvwxyz");
    for (char letter = 'a'; letter <= 'z'; letter++)
        need_no_more(get(letter), _i);
    for (int i = 0; i < 26; i++)
        cache_get(&cache, STR("other"), text_of((char)('a' + i)));
    ck_assert_uint_le(HASH_COUNT(cache.by_key), cache.max_agents);
}
END_TEST

START_TEST(a_dropped_agent_is_gone_with_its_values)
{
    cache_note_heartbeat(&cache, get('a'), 1, STR("fine"), STR("{}"));
    get('b');
    cache_drop(&cache, get('a'));
    ck_assert_str_eq(present(), "b");
    ck_assert_uint_eq(cache.dirty_count, 0);
    ck_assert_ptr_null(cache.dirty);
}
END_TEST

/* ---- revisions ------------------------------------------------------------------------------- */

START_TEST(a_look_up_counts_when_nothing_came_between)
{
    struct cache_agent *agent = get('a');

    ck_assert(cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, agent->revision, 1000));
    ck_assert_str_eq(agent->agent_id, "a-1");
    ck_assert_int_eq(agent->state, AGENT_ACTIVE);
    ck_assert_int_eq(agent->known_since_ms, 1000); /* when it was sent, not when it came */
    ck_assert(cache_fill(agent, STR("a-2"), AGENT_REVOKED, 7, agent->revision, 2000));
    ck_assert_str_eq(agent->agent_id, "a-2");
    ck_assert_int_eq(agent->state, AGENT_REVOKED);
}
END_TEST

START_TEST(a_look_up_from_before_an_invalidation_does_not_count)
{
    struct cache_agent *agent = get('a'), *other = get('b');
    uint64_t sent = agent->revision;

    ck_assert(cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, sent, 1000));
    cache_invalidate(&cache, agent);
    ck_assert_int_eq(agent->state, AGENT_UNKNOWN);
    ck_assert(!cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, sent, 1001));
    ck_assert_int_eq(agent->state, AGENT_UNKNOWN);
    ck_assert(cache_fill(other, STR("b-1"), AGENT_ACTIVE, 7, other->revision, 1000));
    ck_assert_int_eq(other->state, AGENT_ACTIVE); /* the others' answers count as before */
    sent = agent->revision;
    cache_invalidate(&cache, agent); /* each moves it */
    ck_assert(!cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, sent, 1002));
    ck_assert(cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, agent->revision, 1003));
}
END_TEST

START_TEST(an_invalidation_of_all_is_one_of_each)
{
    struct cache_agent *one = get('a'), *other = get('b');
    uint64_t sent = one->revision, sent_other = other->revision;

    cache_fill(one, STR("a-1"), AGENT_ACTIVE, 7, sent, 1000);
    cache_note_heartbeat(&cache, one, 7, STR("fine"), STR_ABSENT);
    cache_invalidate_all(&cache);
    ck_assert_int_eq(one->state, AGENT_UNKNOWN);
    ck_assert(!cache_fill(one, STR("a-1"), AGENT_ACTIVE, 7, sent, 1001));
    ck_assert(!cache_fill(other, STR("b-1"), AGENT_ACTIVE, 7, sent_other, 1001));
    ck_assert(one->dirty); /* what was heard is still to be written */
    ck_assert_str_eq(one->status, "fine");
}
END_TEST

START_TEST(an_entry_made_again_takes_no_answer_that_was_its_forerunners)
{
    struct cache_agent *agent = get('a');
    uint64_t sent = agent->revision;

    cache_invalidate(&cache, agent);
    cache_drop(&cache, agent);
    agent = get('a');
    ck_assert(!cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, sent, 1000));
    ck_assert(cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 7, agent->revision, 1000));
}
END_TEST

/* ---- changes that the feed tells ------------------------------------------------------------- */

static struct cache_agent *known(char letter, uint64_t changed_xid)
{
    struct cache_agent *agent = get(letter);

    ck_assert(cache_fill(agent, STR("a-1"), AGENT_ACTIVE, changed_xid, agent->revision, 1000));
    return agent;
}

static bool apply(char letter, uint64_t changed_xid)
{
    return cache_apply_change(&cache, STR("t"), text_of(letter), changed_xid);
}

START_TEST(a_change_by_the_transaction_that_is_known_changes_nothing)
{
    struct cache_agent *agent = known('a', 42);

    ck_assert(!apply('a', 42));
    ck_assert_int_eq(agent->state, AGENT_ACTIVE);
}
END_TEST

START_TEST(a_change_by_any_other_transaction_is_one_lower_numbers_too)
{
    static const uint64_t others[] = {1, 41, 43, UINT64_MAX, 0};

    for (size_t i = 0; i < COUNT_OF(others); i++) {
        struct cache_agent *agent = known('a', 42);

        ck_assert(apply('a', others[i]));
        ck_assert_int_eq(agent->state, AGENT_UNKNOWN);
    }
}
END_TEST

START_TEST(a_number_that_nobody_could_read_is_like_no_other)
{
    known('a', 0);
    ck_assert(apply('a', 0));
}
END_TEST

START_TEST(a_change_makes_the_answer_on_its_way_count_no_more)
{
    struct cache_agent *agent = get('a');
    uint64_t sent = agent->revision;

    ck_assert(
        apply('a', 42)); /* nothing is known: the very transaction may not be what it brings */
    ck_assert(!cache_fill(agent, STR("a-1"), AGENT_ACTIVE, 41, sent, 1000));
}
END_TEST

START_TEST(a_change_of_an_agent_without_an_entry_meets_the_answer_that_makes_one)
{
    uint64_t sent = get('a')->revision;

    cache_drop(&cache, get('a'));
    ck_assert(!apply('a', 42));
    ck_assert_str_eq(present(), "");
    ck_assert(!cache_fill(get('a'), STR("a-1"), AGENT_ACTIVE, 41, sent, 1000));
}
END_TEST

START_TEST(an_invalidation_of_all_reaches_whom_the_table_has_not)
{
    uint64_t sent = get('a')->revision;

    cache_drop(&cache, get('a'));
    cache_invalidate_all(&cache);
    ck_assert(!cache_fill(get('a'), STR("a-1"), AGENT_ACTIVE, 41, sent, 1000));
}
END_TEST

START_TEST(a_change_is_no_use_of_the_entry)
{
    for (char letter = 'a'; letter <= 'd'; letter++)
        known(letter, 1);
    apply('a', 2);
    get('e');
    ck_assert_str_eq(present(), "bcde");
}
END_TEST

START_TEST(transactions_are_read_as_postgres_writes_them)
{
    ck_assert_uint_eq(cache_changed_from(STR("1")), 1);
    ck_assert_uint_eq(cache_changed_from(STR("4294967297")), 4294967297);
    ck_assert_uint_eq(cache_changed_from(STR("")), 0);
    ck_assert_uint_eq(cache_changed_from(STR_ABSENT), 0);
    ck_assert_uint_eq(cache_changed_from(STR("-1")), 0);
    ck_assert_uint_eq(cache_changed_from(STR("12x")), 0);
}
END_TEST

/* ---- heartbeat values ------------------------------------------------------------------------ */

START_TEST(the_newest_values_wait_to_be_written_once)
{
    struct cache_agent *agent = get('a');

    cache_note_heartbeat(&cache, agent, 1000, STR("fine"), STR("{\"a\":1}"));
    cache_note_heartbeat(&cache, agent, 900, STR_ABSENT,
                         STR("{\"a\":2}")); /* overtaken on its way */
    ck_assert_uint_eq(cache.dirty_count, 1);
    ck_assert_ptr_eq(cache.dirty, agent);
    ck_assert_int_eq(agent->heartbeat_ms, 1000);
    ck_assert_str_eq(agent->status, "fine"); /* absent changes nothing */
    ck_assert_str_eq(agent->metadata, "{\"a\":2}");
    cache_note_heartbeat(&cache, agent, 1100, STR(""), STR_ABSENT); /* empty is not absent */
    ck_assert_str_eq(agent->status, "");
    ck_assert_int_eq(agent->heartbeat_ms, 1100);
}
END_TEST

START_TEST(written_values_are_forgotten)
{
    struct cache_agent *agent = get('a');

    cache_note_heartbeat(&cache, agent, 1000, STR("fine"), STR("{}"));
    cache_note_written(&cache, agent);
    ck_assert(!agent->dirty);
    ck_assert_uint_eq(cache.dirty_count, 0);
    ck_assert_ptr_null(cache.dirty);
    ck_assert_ptr_null(agent->status);
    ck_assert_ptr_null(agent->metadata);
    cache_note_heartbeat(&cache, agent, 1100, STR_ABSENT, STR_ABSENT);
    ck_assert(agent->dirty);
    ck_assert_ptr_null(agent->status);
}
END_TEST

START_TEST(dirty_agents_are_written_in_the_order_in_which_they_became_so)
{
    const char order[] = "cab";
    size_t at = 0;
    struct cache_agent *agent;

    for (size_t i = 0; i < 3; i++)
        cache_note_heartbeat(&cache, get(order[i]), 1, STR_ABSENT, STR_ABSENT);
    cache_note_heartbeat(&cache, get('c'), 2, STR_ABSENT, STR_ABSENT); /* keeps its place */
    for (agent = cache.dirty; agent; agent = agent->dirty_next)
        ck_assert_int_eq(cache_spiffe_id(agent).ptr[0], order[at++]);
    cache_note_written(&cache, get('a')); /* out of the middle */
    ck_assert_uint_eq(cache.dirty_count, 2);
    ck_assert_ptr_eq(cache.dirty->dirty_next, get('b'));
    ck_assert_ptr_null(get('b')->dirty_next);
}
END_TEST

START_TEST(states_have_the_contracts_names)
{
    static const struct {
        enum agent_state state;
        const char *name;
    } states[] = {{AGENT_ACTIVE, "active"},
                  {AGENT_QUARANTINED, "quarantined"},
                  {AGENT_REVOKED, "revoked"},
                  {AGENT_DEREGISTERED, "deregistered"}};
    static const struct str none[] = {STR("unknown"), STR(""),        STR_ABSENT,
                                      STR("Active"),  STR("active "), STR("activ")};

    for (size_t i = 0; i < COUNT_OF(states); i++) {
        ck_assert_str_eq(agent_state_name(states[i].state), states[i].name);
        ck_assert_int_eq(agent_state_from_name(str_from(states[i].name)), states[i].state);
    }
    for (size_t i = 0; i < COUNT_OF(none); i++)
        ck_assert_int_eq(agent_state_from_name(none[i]), AGENT_UNKNOWN);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache");
    TCase *entries = suite_case(suite, "entries");
    TCase *values = suite_case(suite, "values");

    tcase_add_checked_fixture(entries, open_cache, close_cache);
    tcase_add_checked_fixture(values, open_cache, close_cache);
    tcase_add_test(entries, no_split_of_the_same_text_is_the_same_agent);
    tcase_add_test(entries, a_key_is_copied_and_may_be_part_of_a_longer_text);
    tcase_add_test(entries, a_new_entry_knows_nothing);
    tcase_add_test(entries, the_least_recently_used_goes_first);
    tcase_add_loop_test(entries, what_is_needed_stays_and_others_go_for_it, 0, 3);
    tcase_add_loop_test(entries, when_all_are_needed_the_table_grows_and_shrinks_again, 0, 3);
    tcase_add_test(entries, a_dropped_agent_is_gone_with_its_values);
    tcase_add_test(values, a_look_up_counts_when_nothing_came_between);
    tcase_add_test(values, a_look_up_from_before_an_invalidation_does_not_count);
    tcase_add_test(values, an_invalidation_of_all_is_one_of_each);
    tcase_add_test(values, an_entry_made_again_takes_no_answer_that_was_its_forerunners);
    tcase_add_test(values, a_change_by_the_transaction_that_is_known_changes_nothing);
    tcase_add_test(values, a_change_by_any_other_transaction_is_one_lower_numbers_too);
    tcase_add_test(values, a_number_that_nobody_could_read_is_like_no_other);
    tcase_add_test(values, a_change_makes_the_answer_on_its_way_count_no_more);
    tcase_add_test(values, a_change_of_an_agent_without_an_entry_meets_the_answer_that_makes_one);
    tcase_add_test(values, an_invalidation_of_all_reaches_whom_the_table_has_not);
    tcase_add_test(values, a_change_is_no_use_of_the_entry);
    tcase_add_test(values, transactions_are_read_as_postgres_writes_them);
    tcase_add_test(values, the_newest_values_wait_to_be_written_once);
    tcase_add_test(values, written_values_are_forgotten);
    tcase_add_test(values, dirty_agents_are_written_in_the_order_in_which_they_became_so);
    tcase_add_test(values, states_have_the_contracts_names);
    return suite_run(suite);
}
