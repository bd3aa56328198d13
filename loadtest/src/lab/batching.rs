//! Tokens a second and inter-token latency over the number of streams.

use super::Findings;
use super::bench::Bench;
use super::loads::{answers, closed_loop, prompts};
use super::table::{Bars, Table, brief};
use crate::error::Error;
use crate::scenario::{Length, Scenario};

pub(super) const TEXT: &str = include_str!("batching.md");

/// The batches that are compared.
const STREAMS: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// The least requests of a run: one alone would be all noise.
const REQUESTS_MIN: u32 = 3;
const ANSWER_TOKENS: u32 = 32;
const PROMPT_TOKENS: u32 = 16;
/// What a larger batch must bring to count as a gain.
const GAIN_MIN: f64 = 1.25;

/// One number of streams.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    streams: u32,
    tokens_per_s: f64,
    inter_token_ms: f64,
    ttft_ms: f64,
}

/// Every stream sends at once and answers are equally long, so that the batch is full from its start to its end.
fn scenario(target: &str, streams: u32) -> Scenario {
    let requests = u64::from(streams.max(REQUESTS_MIN));
    Scenario {
        seed: u64::from(streams),
        warmup: 1,
        prompts: prompts(PROMPT_TOKENS, 0),
        answers: answers(Length::Fixed(ANSWER_TOKENS)),
        ..closed_loop(target, &self::streams(streams), streams, requests)
    }
}

pub(super) async fn measure(bench: &mut Bench) -> Result<Findings, Error> {
    let worker = bench.worker(&[]).await?;
    let mut points = Vec::new();
    for streams in STREAMS {
        let run = bench.load(scenario(&worker.address, streams), &format!("streams-{streams:02}")).await?;
        let figure = |name: &str| run.figure(name).unwrap_or(f64::NAN);
        points.push(Point {
            streams,
            tokens_per_s: figure("output_tokens_per_s"),
            // The mean, for several tokens may come in one read and their gaps are then 0.
            inter_token_ms: figure("inter_token_mean_ms"),
            ttft_ms: figure("ttft_p50_ms"),
        });
    }
    worker.end().await;
    Ok(findings(&points))
}

fn findings(points: &[Point]) -> Findings {
    let columns = [
        "streams",
        "tokens/s in all",
        "times one stream",
        "tokens/s a stream",
        "inter-token ms",
        "first token ms",
    ];
    let mut table = Table::new("Tokens over streams", &columns);
    let alone = points.first().map_or(f64::NAN, |point| point.tokens_per_s);
    for point in points {
        table.row([
            point.streams.to_string(),
            brief(point.tokens_per_s),
            brief(point.tokens_per_s / alone),
            brief(point.tokens_per_s / f64::from(point.streams)),
            brief(point.inter_token_ms),
            brief(point.ttft_ms),
        ]);
    }
    let measured = points.last().map_or(f64::NAN, |point| point.tokens_per_s / alone);
    let mut sentences = Vec::new();
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        sentences.push(format!(
            "{} streams get {} times the tokens of one; each of them waits {} times as long for its next token.",
            last.streams,
            brief(measured),
            brief(last.inter_token_ms / first.inter_token_ms)
        ));
    }
    sentences.push(growth(points));
    let bars = |title: &str, unit: &str, value: fn(&Point) -> f64| {
        Bars::new(title, unit, points.iter().map(|point| (streams(point.streams), value(point))))
    };
    Findings {
        measured,
        sentences,
        bars: vec![
            bars("Throughput of all streams", "tokens/s", |point| point.tokens_per_s),
            bars("Wait of a stream for its next token", "ms", |point| point.inter_token_ms),
        ],
        tables: vec![table],
    }
}

fn streams(count: u32) -> String {
    if count == 1 { "1 stream".to_owned() } else { format!("{count} streams") }
}

/// Where more streams stop to pay: what comes after never gets a quarter more.
fn growth(points: &[Point]) -> String {
    let gains = |from: &Point, to: &Point| to.tokens_per_s >= GAIN_MIN * from.tokens_per_s;
    let pays = |at: usize| points[at + 1..].iter().any(|later| gains(&points[at], later));
    let knee = (0..points.len().saturating_sub(1)).find(|&at| !pays(at));
    let said = match knee {
        Some(at) => {
            format!("Beyond {} in the batch the total gains less than a quarter.", points[at].streams)
        }
        None => "The total still grows at the largest batch.".to_owned(),
    };
    let before = points.windows(2).take(knee.unwrap_or(points.len()));
    let flat: Vec<String> = before
        .filter(|pair| !gains(&pair[0], &pair[1]))
        .map(|pair| format!("{} to {}", pair[0].streams, pair[1].streams))
        .collect();
    if flat.is_empty() {
        return said;
    }
    format!("{said} Before that, the steps from {} gained little.", flat.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Arrivals;

    fn point(streams: u32, tokens_per_s: f64) -> Point {
        Point { streams, tokens_per_s, inter_token_ms: 1e3 * f64::from(streams) / tokens_per_s, ttft_ms: 1.0 }
    }

    #[test]
    fn the_gain_is_that_of_the_largest_batch_over_one_stream() {
        let findings = findings(&[point(1, 10.0), point(2, 20.0), point(4, 22.0)]);
        assert!((findings.measured - 2.2).abs() < 1e-9);
        assert_eq!(
            findings.sentences[0],
            "4 streams get 2.2 times the tokens of one; each of them waits 1.82 times as long for its next token."
        );
        assert_eq!(findings.sentences[1], "Beyond 2 in the batch the total gains less than a quarter.");
        assert_eq!(findings.tables[0].rows[1][..4], ["2", "20", "2", "10"]);
        assert_eq!(findings.bars[0].bars[1], ("2 streams".to_owned(), 20.0));
    }

    #[test]
    fn a_total_that_keeps_growing_is_said_to() {
        assert!(growth(&[point(1, 10.0), point(2, 19.0)]).contains("still grows"));
        let late = growth(&[point(1, 20.0), point(2, 21.0), point(4, 22.0), point(8, 55.0)]);
        assert!(
            late.contains("still grows") && late.ends_with("the steps from 1 to 2, 2 to 4 gained little."),
            "{late}"
        );
    }

    #[test]
    fn every_stream_has_a_request_from_the_start() {
        for streams in STREAMS {
            let scenario = scenario("http://h", streams);
            assert_eq!(scenario.arrivals, Arrivals::ClosedLoop { users: streams, think_time_s: 0.0 });
            assert!(scenario.requests >= Some(u64::from(streams)));
        }
    }
}
