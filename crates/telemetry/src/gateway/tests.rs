use super::*;
use crate::{InFlight, WorkerMetrics, render};

fn page_of(limits: LabelLimits) -> (Registry, GatewayMetrics) {
    let registry = Registry::new();
    let metrics = GatewayMetrics::with_limits(&registry, limits).expect("registers");
    (registry, metrics)
}

#[test]
fn versions_beyond_the_bound_are_counted_as_other() {
    let (registry, metrics) = page_of(LabelLimits { versions_max: 2, ..LabelLimits::default() });
    for version in ["a", "b", "c", "d", "a"] {
        metrics.version("m", version).requests(Endpoint::Completions, 200).inc();
    }
    let page = render(&registry);
    let line = |model: &str, version: &str, count: u32| {
        format!(
            r#"tenk_gateway_requests_total{{code="200",endpoint="completions",model="{model}",version="{version}"}} {count}"#
        )
    };
    for expected in [line("m", "a", 2), line("m", "b", 1), line("other", "other", 2)] {
        assert!(page.contains(&expected), "{expected} not in\n{page}");
    }
    assert!(!page.contains(r#"version="c""#));
}

#[test]
fn workers_and_reasons_beyond_the_bound_are_counted_as_other() {
    let (registry, metrics) =
        page_of(LabelLimits { workers_max: 1, values_max: 2, ..LabelLimits::default() });
    for worker in ["w1", "w2", "w3"] {
        metrics.worker(worker).requests("ok").inc();
    }
    for reason in ["full", "late", "x", "y", "full"] {
        metrics.rejected(reason).inc();
    }
    let page = render(&registry);
    for expected in [
        r#"tenk_gateway_worker_requests_total{outcome="ok",worker="w1"} 1"#,
        r#"tenk_gateway_worker_requests_total{outcome="ok",worker="other"} 2"#,
        r#"tenk_gateway_rejected_total{reason="full"} 2"#,
        r#"tenk_gateway_rejected_total{reason="late"} 1"#,
        r#"tenk_gateway_rejected_total{reason="other"} 2"#,
    ] {
        assert!(page.contains(expected), "{expected} not in\n{page}");
    }
}

#[test]
fn names_that_read_the_same_when_joined_are_two_series() {
    let (registry, metrics) = page_of(LabelLimits::default());
    metrics.version("m1", "2").prompt_tokens.inc_by(5);
    metrics.version("m", "12").prompt_tokens.inc_by(7);
    let page = render(&registry);
    assert!(page.contains(r#"tenk_gateway_tokens_total{kind="prompt",model="m1",version="2"} 5"#), "{page}");
    assert!(page.contains(r#"tenk_gateway_tokens_total{kind="prompt",model="m",version="12"} 7"#), "{page}");
}

#[test]
fn a_forgotten_worker_and_version_leave_the_page_and_free_their_place() {
    let limits = LabelLimits { workers_max: 1, versions_max: 1, ..LabelLimits::default() };
    let (registry, metrics) = page_of(limits);
    for name in ["w-7", "w-8", "w-7"] {
        let (worker, version) = (metrics.worker(name), metrics.version("m", name));
        worker.requests("ok").inc();
        worker.healthy.set(1);
        version.requests(Endpoint::Models, 200).inc();
        let page = render(&registry);
        assert!(
            page.contains(&format!(r#"worker_requests_total{{outcome="ok",worker="{name}"}} 1"#)),
            "{page}"
        );
        assert!(page.contains(&format!(r#"model="m",version="{name}"}} 1"#)), "{page}");
        metrics.forget_worker(name);
        metrics.forget_version("m", name);
        // A request that was in flight ends late: it must not bring the name back.
        worker.requests("cancelled").inc();
        version.requests(Endpoint::Models, 499).inc();
        assert!(!render(&registry).contains(name));
    }
}

#[test]
fn an_unknown_status_is_counted_as_other() {
    let (registry, metrics) = page_of(LabelLimits::default());
    let version = metrics.version("m", "v");
    for code in [200, 299, 418, 0] {
        version.requests(Endpoint::Other, code).inc();
    }
    assert!(render(&registry).contains(r#"{code="other",endpoint="other",model="m",version="v"} 3"#));
}

#[test]
fn each_cache_result_counts_under_its_own_name() {
    let (registry, metrics) = page_of(LabelLimits::default());
    for (count, result) in (1u64..).zip(CacheResult::ALL) {
        metrics.cache_requests(result).inc_by(count);
    }
    let page = render(&registry);
    for (count, name) in [(1, "hit_memory"), (2, "hit_redis"), (3, "miss"), (4, "coalesced"), (5, "bypass")] {
        assert!(
            page.contains(&format!(r#"tenk_response_cache_requests_total{{result="{name}"}} {count}"#)),
            "{page}"
        );
    }
}

#[test]
fn a_gauge_comes_down_however_its_holder_ends() {
    let (_registry, metrics) = page_of(LabelLimits::default());
    let gauge = &metrics.requests_in_flight;
    let held = InFlight::enter(gauge);
    let unwound = std::panic::catch_unwind(|| {
        let _held = InFlight::enter(gauge);
        assert_eq!(gauge.get(), 2);
        panic!("the request's task fails");
    });
    assert!(unwound.is_err());
    assert_eq!(gauge.get(), 1);
    drop(held);
    assert_eq!(gauge.get(), 0);
}

#[test]
fn two_roles_of_one_process_have_pages_of_their_own() {
    let registries = [Registry::new(), Registry::new()];
    let workers = registries.each_ref().map(|registry| WorkerMetrics::new(registry, "m").expect("registers"));
    workers[0].num_requests_running.set(3);
    let line = |count: u32| format!(r#"vllm:num_requests_running{{model_name="m"}} {count}"#);
    assert!(render(&registries[0]).contains(&line(3)));
    assert!(render(&registries[1]).contains(&line(0)));
    let error = WorkerMetrics::new(&registries[0], "m").expect_err("the page has them already");
    assert!(error.to_string().contains("registry of its own"), "{error}");
}

#[test]
fn a_bound_of_zero_is_refused() {
    let limits = LabelLimits { workers_max: 0, ..LabelLimits::default() };
    let error = GatewayMetrics::with_limits(&Registry::new(), limits).expect_err("no place for any worker");
    assert!(error.to_string().contains("`workers_max`"), "{error}");
}
