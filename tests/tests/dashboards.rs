//! Every query of the board and every alert, run by a real Prometheus over real processes with real traffic.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Api, Launch, Prometheus, Tenk, TinyModel, eventually, repository};

const CHAT: &str = "/v1/chat/completions";

/// Panels that are empty or undefined as long as nothing goes wrong and nothing waits.
const NEED_TROUBLE: [&str; 5] = [
    "Error ratio by version",
    "Outcomes by worker",
    "Retries by reason",
    "Turned away by reason",
    "Wait at the gateway",
];

/// A panel's title and its expression, as Grafana would send it.
fn board_queries() -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(repository().join("dashboards/grafana-overview.json"))?;
    let board: Value = serde_json::from_str(&text)?;
    let mut queries = Vec::new();
    collect(&board["panels"], &mut queries)?;
    ensure!(queries.len() > 30, "only {} queries were found", queries.len());
    Ok(queries)
}

fn collect(panels: &Value, queries: &mut Vec<(String, String)>) -> Result<()> {
    for panel in panels.as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().context("a panel without a title")?;
            let expr = target["expr"].as_str().with_context(|| format!("{title}: no expr"))?;
            // Scraped every second, so that 20 s hold many samples.
            let filled =
                expr.replace("$__rate_interval", "20s").replace("$model", ".*").replace("$version", ".*");
            ensure!(!filled.contains('$'), "{title}: a variable is not filled in: {filled}");
            queries.push((title.to_owned(), filled));
        }
        collect(&panel["panels"], queries)?;
    }
    Ok(())
}

/// Requests of all kinds: streamed and whole, new and repeated, good and refused.
async fn traffic(api: &Api, round: usize) -> Result<()> {
    for (number, stream) in [(round, false), (round, false), (round + 1_000_000, true), (0, true)] {
        let asked = json!({
            "model": TinyModel::NAME, "max_tokens": 24, "temperature": 0, "ignore_eos": true, "stream": stream,
            "logit_bias": {"97": 100},
            "messages": [
                {"role": "system", "content": "The same for all, and longer than a block. ".repeat(8)},
                {"role": "user", "content": format!("question {number}")},
            ],
        });
        let reply = api.post(CHAT, &asked).await?;
        ensure!(reply.status == 200, "{}", reply.text());
    }
    let refused = api.post(CHAT, &json!({"model": TinyModel::NAME, "messages": []})).await?;
    ensure!(refused.status == 400, "{}", refused.text());
    Ok(())
}

/// The values of a query's series; an error if Prometheus refuses it.
async fn values(prometheus: &Prometheus, expr: &str) -> Result<Vec<f64>> {
    let reply = prometheus.query(expr).await?;
    let json = reply.json();
    ensure!(reply.status == 200 && json["status"] == "success", "{expr}\nis refused: {}", reply.text());
    let series = json["data"]["result"].as_array().context("no result")?;
    let value =
        |one: &Value| one["value"][1].as_str().and_then(|value| value.parse().ok()).context("no value");
    series.iter().map(value).collect()
}

/// The gateway says where its workers are.
fn addresses(up: &Tenk) -> Result<Vec<SocketAddr>> {
    let log = up.log();
    let mut found = Vec::new();
    for piece in log.split("http://").skip(1) {
        let end = piece.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(piece.len());
        // The controller is named as well, and has a page of its own.
        if let Ok(address) = piece[..end].parse::<SocketAddr>()
            && piece[end..].starts_with("/metrics")
            && address != up.address()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    ensure!(found.len() == 2, "the addresses of two workers are not told: {found:?}\n{log}");
    Ok(found)
}

#[tokio::test]
async fn every_query_of_the_board_and_every_alert_is_valid_and_has_data_where_there_is_traffic() {
    let checked = Prometheus::promtool(&["check", "rules", "dashboards/alerts.yml"]).await.expect("promtool");
    assert!(checked.status.success(), "{checked:?}");

    let model = TinyModel::new().expect("a model");
    let guesses = ("TENK_SCHEDULER__SPECULATIVE__NUM_SPECULATIVE_TOKENS", "4");
    let up = Launch::up(&model.path()).env(guesses.0, guesses.1).start().await.expect("tenk up");
    up.ready().await.expect("ready");
    let workers = addresses(&up).expect("workers");
    let jobs: [(&str, &[SocketAddr]); 2] = [("tenk-gateway", &[up.address()]), ("tenk-worker", &workers)];
    let prometheus = Prometheus::start(&jobs).await.expect("prometheus");
    eventually("Prometheus scrapes all three", || async {
        let sum = values(&prometheus, "sum(up)").await?;
        ensure!(sum == [3.0], "{sum:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("scraped");

    let queries = board_queries().expect("the board");
    let rounds = std::sync::atomic::AtomicUsize::new(1);
    eventually("every panel has data", || async {
        traffic(&up.api(), rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).await?;
        let mut empty = Vec::new();
        for (title, expr) in &queries {
            let values = values(&prometheus, expr).await?;
            let has_data = values.iter().any(|value| value.is_finite());
            if !has_data && !NEED_TROUBLE.contains(&title.as_str()) {
                empty.push(format!("{title}: {expr}: {values:?}"));
            }
        }
        ensure!(empty.is_empty(), "{} panels have no data:\n{}", empty.len(), empty.join("\n"));
        Ok(())
    })
    .await
    .expect("panels");
    for title in NEED_TROUBLE {
        assert!(queries.iter().any(|(known, _)| known == title), "the board has no panel {title} any more");
    }
    alerts_are_sound(&prometheus).await.expect("alerts");
}

/// Prometheus has read and evaluated each, and none fires while all is well.
async fn alerts_are_sound(prometheus: &Prometheus) -> Result<()> {
    let rules = eventually("the alerts are evaluated", || async {
        let json = prometheus.api().get("/api/v1/rules").await?.json();
        let groups = json["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> =
            groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
        let unknown = rules.iter().find(|rule| rule["health"] != "ok");
        ensure!(rules.len() >= 10 && unknown.is_none(), "{} rules, {unknown:?}", rules.len());
        Ok::<_, anyhow::Error>(rules)
    })
    .await?;
    let text = std::fs::read_to_string(repository().join("dashboards/alerts.yml"))?;
    ensure!(rules.len() == text.matches("- alert:").count(), "{} rules were read", rules.len());
    for rule in rules {
        let expr = rule["query"].as_str().context("no query")?;
        let firing = values(prometheus, expr).await?;
        ensure!(firing.is_empty(), "{} would fire while all is well: {firing:?}", rule["name"]);
    }
    Ok(())
}
