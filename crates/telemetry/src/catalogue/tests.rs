use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::{
    CacheConfigInfo, CacheResult, ControllerMetrics, Endpoint, GatewayMetrics, Registry, WorkerMetrics,
    register_process, render,
};

/// What the last word of a metric of ours may be, before `_total`.
const UNITS: &[&str] = &[
    "seconds",
    "bytes",
    "tokens",
    "blocks",
    "requests",
    "entries",
    "resends",
    "retries",
    "rejected",
    "errors",
    "depth",
    "flight",
    "healthy",
    "info",
    "up",
    "deciding",
    "decisions",
    "percent",
];

#[test]
fn every_name_is_valid_and_unique_and_has_help_and_labels_that_prometheus_takes() {
    let is_word = |text: &str| {
        text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && text.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let mut names = BTreeSet::new();
    for spec in all() {
        let (prefix, rest) = spec.name.split_once(':').unwrap_or(("tenk", spec.name));
        assert!(["tenk", "vllm"].contains(&prefix) && is_word(rest), "{} is not a name", spec.name);
        assert!(spec.help.ends_with('.') && spec.help.len() > 10, "{} has no help", spec.name);
        let labels: BTreeSet<_> = spec.labels.iter().collect();
        assert_eq!(labels.len(), spec.labels.len(), "{} has a label twice", spec.name);
        assert!(spec.labels.iter().all(|label| is_word(label) && *label != "le"), "{}'s labels", spec.name);
        for sample in spec.sample_names() {
            assert!(names.insert(sample.clone()), "{sample} is exported by two metrics");
        }
    }
}

#[test]
fn names_of_ours_end_in_a_unit_and_counters_in_total() {
    for spec in all().filter(|spec| !spec.name.starts_with("vllm:")) {
        let base = spec.name.strip_suffix("_total");
        assert_eq!(
            base.is_some(),
            spec.kind == MetricKind::Counter,
            "{}: `_total` is for counters",
            spec.name
        );
        let unit = base.unwrap_or(spec.name).rsplit('_').next().expect("a last word");
        assert!(UNITS.contains(&unit), "{}: `{unit}` is not a known unit", spec.name);
        assert!(spec.kind != MetricKind::Histogram || unit == "seconds", "{}: time is in seconds", spec.name);
    }
}

#[test]
fn buckets_ascend_and_only_histograms_have_them() {
    for spec in all() {
        assert_eq!(spec.buckets.is_empty(), spec.kind != MetricKind::Histogram, "{}", spec.name);
        assert!(spec.buckets.windows(2).all(|pair| pair[0] < pair[1]), "{}", spec.name);
    }
}

/// A page's samples: name and labels; and its metrics' types.
struct Page {
    samples: Vec<(String, BTreeSet<String>)>,
    types: HashMap<String, String>,
}

/// Reads the text form strictly: help and type stand before the samples, and every line is one of the three.
fn parse(text: &str) -> Page {
    let mut page = Page { samples: Vec::new(), types: HashMap::new() };
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _help) = rest.split_once(' ').expect("a help text");
            assert!(helped.insert(name.to_owned()), "{name} is helped twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(helped.contains(name), "{name} has no help");
            page.types.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("a closing brace");
            let names = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
                let (label, value) = pair.split_once('=').expect("a label's value");
                assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
                label.to_owned()
            });
            page.samples.push((name.to_owned(), names.collect()));
        }
    }
    page
}

/// Uses every handle once, a gateway and a worker on one page.
fn everything() -> String {
    let registry = Registry::new();
    register_process(&registry, "1.2.3").expect("registers");
    let worker = WorkerMetrics::new(&registry, "m").expect("registers");
    worker.simulation().expect("registers");
    worker
        .set_cache_config(&CacheConfigInfo {
            block_size: 16,
            num_gpu_blocks: 100,
            cache_dtype: "f32".into(),
            enable_prefix_caching: true,
        })
        .expect("registers");
    let gateway = GatewayMetrics::new(&registry).expect("registers");
    gateway.version("m", "v").requests(Endpoint::ChatCompletions, 200).inc();
    gateway.worker("w").requests("ok").inc();
    gateway.rejected("queue_full").inc();
    gateway.retries("connect").inc();
    gateway.cache_requests(CacheResult::Miss).inc();
    gateway.cache_errors("timeout").inc();
    let controller = ControllerMetrics::new(&registry).expect("registers");
    controller.decisions("stepped").inc();
    controller.percent("m").set(5.0);
    render(&registry)
}

#[test]
fn the_page_parses_and_shows_the_whole_catalogue_with_its_kinds_and_labels_and_nothing_else() {
    let page = parse(&everything());
    for spec in all() {
        let kind = format!("{:?}", spec.kind).to_lowercase();
        assert_eq!(page.types.get(spec.name), Some(&kind), "{} is not shown", spec.name);
    }
    assert_eq!(page.types.len(), all().count());
    for (name, mut labels) in page.samples {
        let spec = find_sample(&name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        assert_eq!(labels.remove("le"), name.ends_with("_bucket"), "{name}");
        assert_eq!(labels, spec.labels.iter().map(|label| (*label).to_owned()).collect(), "{name}");
    }
}

#[test]
fn a_label_value_with_quotes_and_line_breaks_stays_on_its_line() {
    let registry = Registry::new();
    let metrics = GatewayMetrics::new(&registry).expect("registers");
    metrics.worker("a\"b\\c\nd").healthy.set(1);
    assert!(render(&registry).contains(r#"tenk_gateway_worker_healthy{worker="a\"b\\c\nd"} 1"#));
}
