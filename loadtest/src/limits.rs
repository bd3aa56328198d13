//! What keeps the target from doing more, told from its own metrics. Pure: a function of what was read and of a few
//! figures of the run.

use serde::{Deserialize, Serialize};

use crate::scrape::{TargetMetrics, names, rates};

/// What limits a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The KV cache is full: requests wait for blocks, or lose theirs.
    KvBlocks,
    /// The machine's CPUs are busy.
    Cpu,
    /// Requests wait although there are blocks: the batch has all the requests or tokens that it may.
    BatchBudget,
    /// Time is lost between the tester and the server.
    Network,
    /// More comes than is served, for none of the reasons above.
    Queue,
    /// The target kept up.
    None,
    /// The target does not tell enough.
    Unknown,
}

impl Limit {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KvBlocks => "KV blocks",
            Self::Cpu => "CPU",
            Self::BatchBudget => "batch budget",
            Self::Network => "network",
            Self::Queue => "queue",
            Self::None => "nothing",
            Self::Unknown => "unknown",
        }
    }
}

/// A limit and what shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub limit: Limit,
    /// A sentence with the numbers.
    pub evidence: String,
}

/// What the run itself saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// The mean time from sending to the first token, in milliseconds.
    pub ttft_mean_ms: Option<f64>,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that got no connection, or lost it.
    pub broken: u64,
    /// The share of requests that met all targets, where there are any.
    pub good_share: Option<f64>,
    /// What came and went, where requests came whether others had ended or not.
    pub flow: Option<Flow>,
}

/// Requests of the second half of the time in which they became due.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// That became due.
    pub due: u64,
    /// That ended, whenever they came.
    pub ended: u64,
    /// How long requests became due for, first half included, in seconds.
    pub sending_s: f64,
    /// How long requests took from sending, in the median.
    pub e2e_p50_s: f64,
}

impl Flow {
    /// The least requests that tell anything.
    const DUE_MIN: u64 = 10;

    /// Whether fewer than three of four went.
    const fn is_stuck(&self) -> bool {
        self.due >= Self::DUE_MIN && 4 * self.ended < 3 * self.due
    }

    /// Whether too little of the run was left for those that came to end.
    fn is_brief(&self) -> bool {
        self.e2e_p50_s > self.sending_s / 2.0
    }
}

/// The share of a cache or of the CPUs from which they count as full.
const FULL: f64 = 0.9;
/// The share of moments at which something must be so, lest a brief rush make a verdict.
const OFTEN: f64 = 0.25;
/// The CPUs that programs beside servers and tester must take to be mentioned.
const OTHERS_MIN: f64 = 0.1;
/// The share of the CPUs that others must take to be a disturbance.
const DISTURBANCE_MIN: f64 = 0.25;
/// The share that servers and tester must take to want more.
const WANTED_MIN: f64 = 0.25;
/// The share of good requests below which a target did not keep up, whatever its queues say.
const GOOD_SHARE_MIN: f64 = 0.9;

/// Everything that limits, the most telling first; never empty. What is found first is the verdict: a full cache or a
/// full machine is a cause, a full batch may be their effect, and a queue is the effect of anything.
pub fn judge(read: &TargetMetrics, seen: &Seen) -> Vec<Finding> {
    let rules = [kv_blocks, cpu, batch_budget, network, queue];
    let mut found: Vec<Finding> = rules.iter().filter_map(|rule| rule(read, seen)).collect();
    if found.is_empty() {
        found.push(nothing(read, seen));
    }
    found
}

fn finding(limit: Limit, evidence: String) -> Option<Finding> {
    Some(Finding { limit, evidence })
}

fn kv_blocks(read: &TargetMetrics, _: &Seen) -> Option<Finding> {
    let preemptions = read.growth(names::PREEMPTIONS).unwrap_or(0.0);
    let usage = read.max(names::KV_USAGE);
    let peak = largest(&usage).unwrap_or(0.0);
    if preemptions > 0.0 {
        return finding(
            Limit::KvBlocks,
            format!(
                "{preemptions:.0} requests lost their KV blocks to others and started again; usage reached {:.0}%",
                100.0 * peak
            ),
        );
    }
    let full = share(&usage, |value| value >= FULL);
    let waited = largest(&read.sum(names::WAITING)).unwrap_or(0.0);
    if full < OFTEN || waited == 0.0 {
        return None;
    }
    finding(
        Limit::KvBlocks,
        format!(
            "{:.0}% of the time at least {:.0}% of the KV blocks were taken, while up to {waited:.0} requests waited",
            100.0 * full,
            100.0 * FULL
        ),
    )
}

/// Who takes the CPUs of the machine that target and tester share.
#[derive(Clone, Copy, Debug)]
struct Cpus {
    cores: f64,
    servers: Option<f64>,
    tester: f64,
    others: f64,
}

impl Cpus {
    fn of(read: &TargetMetrics) -> Option<Self> {
        let cores = f64::from(read.cores?);
        let servers = upper_quartile(&read.rate(names::CPU));
        let tester = upper_quartile(&rates(&read.of_tester(names::CPU))).unwrap_or(0.0);
        let machine = upper_quartile(&rates(&read.of_tester(names::MACHINE_CPU))).unwrap_or(0.0);
        let others = (machine - tester - servers.unwrap_or(0.0)).max(0.0);
        Some(Self { cores, servers, tester, others })
    }
}

/// What a reader must know of a machine that other programs use, too.
pub(crate) fn disturbance(read: &TargetMetrics) -> Option<String> {
    let Cpus { cores, others, .. } = Cpus::of(read).filter(|cpus| cpus.servers.is_some())?;
    (others >= DISTURBANCE_MIN * cores).then(|| {
        format!("other programs took {others:.2} of the machine's {cores:.0} CPUs meanwhile: measure again when it is quiet")
    })
}

fn cpu(read: &TargetMetrics, _: &Seen) -> Option<Finding> {
    let Cpus { cores, servers, tester, others } = Cpus::of(read)?;
    let own = servers.unwrap_or(0.0) + tester;
    // Others keep servers from nothing that hardly want a CPU.
    let counted = if own >= WANTED_MIN * cores { own + others } else { own };
    (counted >= FULL * cores).then_some(())?;
    let mut takers: Vec<String> =
        servers.map(|servers| format!("the servers took {servers:.2}")).into_iter().collect();
    takers.push(format!("the tester took {tester:.2}"));
    if others >= OTHERS_MIN {
        takers.push(format!("other programs took {others:.2}"));
    }
    let last = takers.pop().unwrap_or_default();
    let first = if takers.is_empty() { String::new() } else { format!("{} and ", takers.join(", ")) };
    finding(Limit::Cpu, format!("{first}{last} of the machine's {cores:.0} CPUs, which they share"))
}

fn batch_budget(read: &TargetMetrics, _: &Seen) -> Option<Finding> {
    let (running, waiting) = (read.sum(names::RUNNING), read.sum(names::WAITING));
    if share(&waiting, |value| value > 0.0) < OFTEN {
        return None;
    }
    let waited = largest(&waiting)?;
    let while_waiting = |series: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let waits = |at_s: f64| waiting.iter().any(|(other_s, value)| *other_s == at_s && *value > 0.0);
        series.iter().copied().filter(|(at_s, _)| waits(*at_s)).collect()
    };
    let most = largest(&running)?;
    let level = share(&while_waiting(&running), |value| value >= 0.95 * most);
    if most >= 1.0 && level >= 0.75 {
        return finding(
            Limit::BatchBudget,
            format!("{most:.0} requests ran at a time and no more, while up to {waited:.0} waited"),
        );
    }
    let step_tokens = tokens_a_step(read);
    let most_tokens = largest(&step_tokens)?;
    let level = share(&while_waiting(&step_tokens), |value| value >= FULL * most_tokens);
    (level >= 0.75).then_some(())?;
    finding(
        Limit::BatchBudget,
        format!("steps were full at about {most_tokens:.0} tokens, while up to {waited:.0} requests waited"),
    )
}

fn network(read: &TargetMetrics, seen: &Seen) -> Option<Finding> {
    if seen.broken * 100 > seen.sent {
        return finding(
            Limit::Network,
            format!("{} of {} requests got no connection or lost it", seen.broken, seen.sent),
        );
    }
    let mean_ms =
        |sum, count| Some(1e3 * read.growth(sum)? / read.growth(count).filter(|count| *count > 0.0)?);
    let there_ms = mean_ms(names::GATEWAY_TTFT_SUM, names::GATEWAY_TTFT_COUNT)
        .or_else(|| mean_ms(names::WORKER_TTFT_SUM, names::WORKER_TTFT_COUNT))?;
    let here_ms = seen.ttft_mean_ms?;
    (here_ms - there_ms > 5.0 && there_ms < here_ms / 2.0).then_some(())?;
    finding(
        Limit::Network,
        format!(
            "first tokens took {here_ms:.1} ms in the mean, of which the server knows {there_ms:.1} ms: the rest is \
             lost between it and the tester"
        ),
    )
}

fn queue(read: &TargetMetrics, seen: &Seen) -> Option<Finding> {
    queue_told(read).or_else(|| queue_seen(seen))
}

/// A queue that the target does not tell of: requests come and do not go.
fn queue_seen(seen: &Seen) -> Option<Finding> {
    let flow = seen.flow.filter(|flow| flow.is_stuck() && !flow.is_brief())?;
    finding(
        Limit::Queue,
        format!(
            "in the second half of the run {} requests came and {} ended: more comes than is served",
            flow.due, flow.ended
        ),
    )
}

fn queue_told(read: &TargetMetrics) -> Option<Finding> {
    let grown = |name: &str| {
        let depth = read.sum(name);
        let quarter = depth.len().div_ceil(4);
        (depth.len() >= 4).then_some(())?;
        let (early, late) = (mean(&depth[..quarter])?, mean(&depth[depth.len() - quarter..])?);
        (late >= 2.0 * early + 1.0).then_some((early, late))
    };
    let (what, (early, late)) = grown(names::GATEWAY_QUEUE)
        .map(|grown| ("the gateway's queue", grown))
        .or_else(|| grown(names::WAITING).map(|grown| ("the workers' queue", grown)))?;
    finding(
        Limit::Queue,
        format!(
            "{what} grew from {early:.1} to {late:.1} requests from the run's first quarter to its last: more comes \
             than is served"
        ),
    )
}

fn nothing(read: &TargetMetrics, seen: &Seen) -> Finding {
    let running = largest(&read.sum(names::RUNNING));
    let in_workers = largest(&read.sum(names::WAITING));
    let in_gateway = largest(&read.sum(names::GATEWAY_QUEUE));
    let unknown = |evidence: String| Finding { limit: Limit::Unknown, evidence };
    // Whoever reads a gateway alone does not see its workers.
    let unread = match (in_workers, in_gateway) {
        (None, Some(_)) => {
            "; the workers' own queues were not read (--scrape http://HOST:PORT reads one more server)"
        }
        _ => "",
    };
    if let Some(flow) = seen.flow.filter(|flow| flow.is_stuck() && flow.is_brief()) {
        return unknown(format!(
            "requests took {:.1} s in the median and were sent for {:.1} s: too brief a run to tell whether the target \
             keeps up{unread}",
            flow.e2e_p50_s, flow.sending_s
        ));
    }
    if let Some(share) = seen.good_share.filter(|share| *share < GOOD_SHARE_MIN) {
        return unknown(format!(
            "only {:.1}% of requests met their targets, and nothing that was read tells why{unread}",
            100.0 * share
        ));
    }
    let waiting = match (running, in_workers.or(in_gateway)) {
        (None, None) => {
            return unknown(
                "the target's /metrics could not be read, or has no series that is known here".into(),
            );
        }
        (_, None) => return unknown("the target does not say how many requests wait".into()),
        (_, Some(waiting)) => waiting,
    };
    let running = running.map_or_else(String::new, |most| format!("up to {most:.0} requests ran and "));
    let where_ = if unread.is_empty() { "" } else { " in the gateway" };
    let waited = if waiting > 0.0 {
        format!("at most {waiting:.0} waited{where_}, and not for long")
    } else {
        format!("none waited{where_}")
    };
    Finding { limit: Limit::None, evidence: format!("{running}{waited}: the target kept up{unread}") }
}

/// The mean tokens of a step, between moments in which there were steps.
fn tokens_a_step(read: &TargetMetrics) -> Vec<(f64, f64)> {
    let (tokens, steps) = (read.rate(names::STEP_TOKENS), read.rate(names::STEPS));
    let pairs =
        tokens.iter().zip(&steps).filter(|((at_s, _), (other_s, steps))| at_s == other_s && *steps > 0.0);
    pairs.map(|((at_s, tokens), (_, steps))| (*at_s, tokens / steps)).collect()
}

fn largest(series: &[(f64, f64)]) -> Option<f64> {
    series.iter().map(|(_, value)| *value).reduce(f64::max)
}

fn mean(series: &[(f64, f64)]) -> Option<f64> {
    (!series.is_empty()).then(|| series.iter().map(|(_, value)| value).sum::<f64>() / series.len() as f64)
}

/// What three quarters of the values do not exceed: near the most, but no single peak.
fn upper_quartile(series: &[(f64, f64)]) -> Option<f64> {
    let mut values: Vec<f64> = series.iter().map(|(_, value)| *value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() * 3 / 4).min(values.len().saturating_sub(1))).copied()
}

/// The share of moments whose value is as wanted; 0 without moments.
fn share(series: &[(f64, f64)], wanted: impl Fn(f64) -> bool) -> f64 {
    if series.is_empty() {
        return 0.0;
    }
    series.iter().filter(|(_, value)| wanted(*value)).count() as f64 / series.len() as f64
}

#[cfg(test)]
mod tests;
