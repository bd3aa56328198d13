//! Every query of the board and of the alert rules is PromQL, asks for metrics of the catalogue, and uses labels that
//! they have.

#![expect(clippy::expect_used, clippy::panic, reason = "all of it is test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use promql_parser::parser::{Expr, LabelModifier, VectorSelector};
use serde_json::Value;
use telemetry::catalogue::{self, MetricKind};

/// Added by Prometheus to whatever it scrapes.
const SCRAPE_LABELS: [&str; 2] = ["job", "instance"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards")
}

fn board() -> Value {
    let text = std::fs::read_to_string(folder().join("grafana-overview.json")).expect("readable");
    serde_json::from_str(&text).expect("the board is JSON")
}

fn rules() -> String {
    std::fs::read_to_string(folder().join("alerts.yml")).expect("readable")
}

/// A query, what it is called, and how Grafana labels its lines.
struct Query {
    title: String,
    expr: String,
    legend: String,
}

fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"].as_array().into_iter().flatten()
}

fn board_queries(board: &Value) -> Vec<Query> {
    let of_panel = |panel: &Value| -> Vec<Query> {
        let query = |target: &Value| Query {
            title: panel["title"].as_str().expect("a title").to_owned(),
            expr: target["expr"].as_str().expect("an expr").replace("$__rate_interval", "1m"),
            legend: target["legendFormat"].as_str().expect("a legend").to_owned(),
        };
        panel["targets"].as_array().into_iter().flatten().map(query).collect()
    };
    panels(board).flat_map(of_panel).collect()
}

/// The rules' expressions: whatever is indented below an `expr: |`.
fn rule_queries(text: &str) -> Vec<Query> {
    let mut queries = Vec::new();
    let mut title = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            title = name.to_owned();
        }
        if line.trim() == "expr: |" {
            let indent = |line: &str| line.len() - line.trim_start().len();
            let mut expr = String::new();
            while let Some(more) = lines.next_if(|next| indent(next) > indent(line)) {
                expr.push_str(more.trim());
                expr.push('\n');
            }
            queries.push(Query { title: title.clone(), expr, legend: String::new() });
        }
    }
    queries
}

/// Walks an expression; returns the labels that its result may carry.
fn check(expr: &Expr, problems: &mut Vec<String>) -> BTreeSet<String> {
    match expr {
        Expr::VectorSelector(selector) => check_selector(selector, problems),
        Expr::MatrixSelector(selector) => check_selector(&selector.vs, problems),
        Expr::Aggregate(aggregate) => {
            let inner = check(&aggregate.expr, problems);
            match &aggregate.modifier {
                None => BTreeSet::new(),
                Some(LabelModifier::Include(by)) => require(&by.labels, &inner, "by", problems),
                Some(LabelModifier::Exclude(without)) => {
                    let gone = require(&without.labels, &inner, "without", problems);
                    inner.difference(&gone).cloned().collect()
                }
            }
        }
        Expr::Binary(binary) => {
            let (left, right) = (check(&binary.lhs, problems), check(&binary.rhs, problems));
            if let Some(matching) = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
                require(&matching.labels().labels, &left, "on", problems);
                require(&matching.labels().labels, &right, "on", problems);
            }
            left.union(&right).cloned().collect()
        }
        Expr::Call(call) => {
            let mut labels: BTreeSet<String> =
                call.args.args.iter().flat_map(|argument| check(argument, problems)).collect();
            if call.func.name == "histogram_quantile" && !labels.remove("le") {
                problems.push("histogram_quantile needs `le`".to_owned());
            }
            labels
        }
        Expr::Paren(paren) => check(&paren.expr, problems),
        Expr::Unary(unary) => check(&unary.expr, problems),
        Expr::Subquery(subquery) => check(&subquery.expr, problems),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => BTreeSet::new(),
        Expr::Extension(_) => panic!("plain PromQL has no extensions"),
    }
}

fn require(
    wanted: &[String],
    there: &BTreeSet<String>,
    place: &str,
    problems: &mut Vec<String>,
) -> BTreeSet<String> {
    for label in wanted.iter().filter(|label| !there.contains(*label)) {
        problems.push(format!("{place} ({label}): only {there:?} are there"));
    }
    wanted.iter().cloned().collect()
}

fn check_selector(selector: &VectorSelector, problems: &mut Vec<String>) -> BTreeSet<String> {
    let name = selector.name.as_deref().unwrap_or_default();
    let Some(spec) = catalogue::find_sample(name) else {
        problems.push(format!("`{name}` is not in the catalogue"));
        return BTreeSet::new();
    };
    let mut labels: BTreeSet<String> =
        spec.labels.iter().chain(&SCRAPE_LABELS).map(|&label| label.to_owned()).collect();
    if spec.kind == MetricKind::Histogram && name.ends_with("_bucket") {
        labels.insert("le".to_owned());
    }
    for matcher in &selector.matchers.matchers {
        require(std::slice::from_ref(&matcher.name), &labels, name, problems);
    }
    labels
}

fn problems_of(query: &Query) -> Vec<String> {
    let mut problems = Vec::new();
    match promql_parser::parser::parse(&query.expr) {
        Err(error) => problems.push(error),
        Ok(expr) => {
            let labels = check(&expr, &mut problems);
            let shown = query.legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
            // A heat map's lines are its buckets, whose label stays.
            for (label, _) in shown.filter(|(label, _)| !labels.contains(*label)) {
                problems.push(format!("the legend shows `{label}`, which the result has not: {labels:?}"));
            }
        }
    }
    problems.into_iter().map(|problem| format!("{}: {problem}\n  {}", query.title, query.expr)).collect()
}

#[test]
fn every_query_of_the_board_asks_for_metrics_and_labels_of_the_catalogue() {
    let queries = board_queries(&board());
    assert!(queries.len() > 40, "only {} queries were found", queries.len());
    let problems: Vec<String> = queries.iter().flat_map(problems_of).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_alert_asks_for_metrics_and_labels_of_the_catalogue() {
    let text = rules();
    let queries = rule_queries(&text);
    assert_eq!(queries.len(), text.matches("- alert: ").count(), "an alert without a readable expr");
    assert_eq!(queries.len(), text.matches("expr:").count());
    let problems: Vec<String> = queries.iter().flat_map(problems_of).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_wrong_metric_label_legend_or_syntax_is_found() {
    let problems = |expr: &str, legend: &str| {
        problems_of(&Query { title: "made up".into(), expr: expr.into(), legend: legend.into() }).len()
    };
    let good = "sum by (version) (rate(tenk_gateway_requests_total{model=\"m\"}[5m]))";
    assert_eq!(problems(good, "{{version}}"), 0);
    for (expr, legend) in [
        ("rate(tenk_gateway_request_total[5m])", ""),
        ("rate(tenk_gateway_request_duration_seconds[5m])", ""),
        ("rate(tenk_gateway_requests_total{modell=\"m\"}[5m])", ""),
        ("sum by (versions) (tenk_gateway_requests_total)", ""),
        (good, "{{model}}"),
        ("sum by (version) (rate(tenk_gateway_requests_total[5m])", ""),
        ("histogram_quantile(0.5, sum(rate(tenk_gateway_own_seconds_bucket[5m])))", ""),
        ("sum by (model) (vllm:kv_cache_usage_perc)", ""),
    ] {
        assert_eq!(problems(expr, legend), 1, "{expr} {legend}");
    }
}

#[test]
fn the_boards_variables_are_labels_of_their_metric_and_every_panel_names_the_chosen_source() {
    let board = board();
    let variables = board["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "model", "version"]);
    for variable in &variables[1..] {
        let query = variable["query"]["query"].as_str().expect("a query");
        let inside = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'))
            .expect("label_values");
        let (metric, label) = inside.rsplit_once(", ").expect("a metric and a label");
        let expr = format!("sum by ({label}) ({metric})");
        let query = Query { title: query.into(), expr, legend: String::new() };
        assert_eq!(problems_of(&query), Vec::<String>::new());
    }
    for panel in panels(&board).filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{}", panel["title"]);
    }
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    let board = board();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels(&board) {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{}", panel["title"]);
        let at = |field: &str| panel["gridPos"][field].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{} is too wide", panel["title"]);
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(cells.insert((x, y)), "{} lies over another panel", panel["title"]);
        }
    }
}

#[test]
fn every_alert_says_what_it_means_where_to_look_and_what_to_do() {
    let text = rules();
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    for alert in alerts {
        for field in ["summary: \"", "meaning: \"", "look: \"", "do: \"", "severity: "] {
            assert_eq!(alert.matches(field).count(), 1, "{field} in {alert}");
        }
    }
}

/// Prometheus' own checker is installed by `cargo xtask test`, which also sets `TENK_TEST_SERVERS`; without it the
/// other tests here have to do.
#[test]
fn promtool_accepts_the_rules() {
    let run = Command::new("promtool").args(["check", "rules"]).arg(folder().join("alerts.yml")).output();
    match run {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => assert!(std::env::var_os("TENK_TEST_SERVERS").is_none(), "promtool: {error}"),
    }
}
