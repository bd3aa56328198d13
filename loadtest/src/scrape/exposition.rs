//! Prometheus' text form, of which only known series are read.

use std::collections::BTreeMap;

/// The names of the series that are kept, as vLLM and tenk write them.
pub(crate) mod names {
    pub(crate) const RUNNING: &str = "vllm:num_requests_running";
    pub(crate) const WAITING: &str = "vllm:num_requests_waiting";
    pub(crate) const KV_USAGE: &str = "vllm:kv_cache_usage_perc";
    pub(crate) const PREEMPTIONS: &str = "vllm:num_preemptions_total";
    pub(crate) const STEP_TOKENS: &str = "vllm:iteration_tokens_total_sum";
    pub(crate) const STEPS: &str = "vllm:iteration_tokens_total_count";
    pub(crate) const WORKER_TTFT_SUM: &str = "vllm:time_to_first_token_seconds_sum";
    pub(crate) const WORKER_TTFT_COUNT: &str = "vllm:time_to_first_token_seconds_count";
    pub(crate) const GATEWAY_TTFT_SUM: &str = "tenk_gateway_time_to_first_token_seconds_sum";
    pub(crate) const GATEWAY_TTFT_COUNT: &str = "tenk_gateway_time_to_first_token_seconds_count";
    pub(crate) const GATEWAY_QUEUE: &str = "tenk_gateway_queue_depth";
    pub(crate) const GATEWAY_REJECTED: &str = "tenk_gateway_rejected_total";
    pub(crate) const CPU: &str = "process_cpu_seconds_total";
    pub(crate) const STARTED: &str = "process_start_time_seconds";
    /// Of all programs of the machine, as the tester reads it.
    pub(crate) const MACHINE_CPU: &str = "machine_cpu_seconds_total";
    pub(crate) const MEMORY: &str = "process_resident_memory_bytes";
}

use names::*;

/// How series that differ in labels alone become one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Join {
    Sum,
    Max,
}

/// A name that servers write, the name under which it is kept, and how. Sorted by the former.
const KEPT: &[(&str, &str, Join)] = &[
    ("llamacpp:kv_cache_usage_ratio", KV_USAGE, Join::Max),
    ("llamacpp:requests_deferred", WAITING, Join::Sum),
    ("llamacpp:requests_processing", RUNNING, Join::Sum),
    (CPU, CPU, Join::Sum),
    (MEMORY, MEMORY, Join::Sum),
    (STARTED, STARTED, Join::Max),
    ("sglang:num_queue_reqs", WAITING, Join::Sum),
    ("sglang:num_running_reqs", RUNNING, Join::Sum),
    ("sglang:token_usage", KV_USAGE, Join::Max),
    (GATEWAY_QUEUE, GATEWAY_QUEUE, Join::Sum),
    (GATEWAY_REJECTED, GATEWAY_REJECTED, Join::Sum),
    ("tenk_gateway_requests_in_flight", "tenk_gateway_requests_in_flight", Join::Sum),
    ("tenk_gateway_retries_total", "tenk_gateway_retries_total", Join::Sum),
    (GATEWAY_TTFT_COUNT, GATEWAY_TTFT_COUNT, Join::Sum),
    (GATEWAY_TTFT_SUM, GATEWAY_TTFT_SUM, Join::Sum),
    ("tenk_gateway_worker_healthy", "tenk_gateway_worker_healthy", Join::Sum),
    ("tenk_response_cache_bytes", "tenk_response_cache_bytes", Join::Sum),
    ("tenk_response_cache_entries", "tenk_response_cache_entries", Join::Sum),
    ("vllm:generation_tokens_total", "vllm:generation_tokens_total", Join::Sum),
    ("vllm:gpu_cache_usage_perc", KV_USAGE, Join::Max),
    (STEPS, STEPS, Join::Sum),
    (STEP_TOKENS, STEP_TOKENS, Join::Sum),
    (KV_USAGE, KV_USAGE, Join::Max),
    (PREEMPTIONS, PREEMPTIONS, Join::Sum),
    (RUNNING, RUNNING, Join::Sum),
    (WAITING, WAITING, Join::Sum),
    ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits_total", Join::Sum),
    ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries_total", Join::Sum),
    ("vllm:prompt_tokens_total", "vllm:prompt_tokens_total", Join::Sum),
    (WORKER_TTFT_COUNT, WORKER_TTFT_COUNT, Join::Sum),
    (WORKER_TTFT_SUM, WORKER_TTFT_SUM, Join::Sum),
];

/// The kept series of a page. Lines that are not understood are passed over: a page that is partly odd is still of use.
pub(crate) fn parse(page: &str) -> BTreeMap<&'static str, f64> {
    let mut kept = BTreeMap::new();
    for line in page.lines() {
        let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let Ok(index) = KEPT.binary_search_by(|(name, _, _)| (*name).cmp(&line[..end])) else { continue };
        let Some(value) = value_of(&line[end..]).filter(|value| value.is_finite()) else { continue };
        let (_, name, join) = KEPT[index];
        kept.entry(name)
            .and_modify(|before| {
                *before = if join == Join::Sum { *before + value } else { value.max(*before) }
            })
            .or_insert(value);
    }
    kept
}

/// The value after the labels, if there are any; a time stamp may follow it.
fn value_of(rest: &str) -> Option<f64> {
    let after_labels = if rest.starts_with('{') { &rest[end_of_labels(rest)?..] } else { rest };
    after_labels.split_ascii_whitespace().next()?.parse().ok()
}

/// Where the closing brace ends; one within a quoted value is none.
fn end_of_labels(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(KEPT.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn known_series_are_read_and_others_passed_over() {
        let page = "# HELP vllm:num_requests_running Requests.\n# TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{model_name=\"a } b\\\"\"} 3\n\
            vllm:num_requests_running{model_name=\"b\"} 4 1700000000\n\
            vllm:num_requests_running_else 9\n\
            process_cpu_seconds_total 1.5e1\n\
            vllm:iteration_tokens_total_bucket{le=\"+Inf\"} 7\n\
            vllm:iteration_tokens_total_sum{model_name=\"b\"} 70\n\
            go_goroutines 12\n";
        let expected = [("process_cpu_seconds_total", 15.0), (STEP_TOKENS, 70.0), (RUNNING, 7.0)];
        assert_eq!(parse(page), BTreeMap::from(expected));
    }

    #[test]
    fn shares_are_not_added_up() {
        let page = "vllm:kv_cache_usage_perc{e=\"0\"} 0.5\nvllm:kv_cache_usage_perc{e=\"1\"} 0.75\n";
        assert_eq!(parse(page)[KV_USAGE], 0.75);
    }

    #[test]
    fn other_servers_names_are_kept_under_one() {
        assert_eq!(parse("llamacpp:requests_deferred 4\n")[WAITING], 4.0);
        assert_eq!(parse("sglang:num_running_reqs{a=\"b\"} 2.0\n")[RUNNING], 2.0);
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let page = "process_cpu_seconds_total\nprocess_cpu_seconds_total{\nprocess_cpu_seconds_total{a=\"} 1\n\
            process_cpu_seconds_total NaN\nprocess_cpu_seconds_total x\n\n{} 1\n";
        assert!(parse(page).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(vllm:num_requests_running|[{}\"\\\\ \n]|[0-9.]|é)*") {
            parse(&text);
        }
    }
}
