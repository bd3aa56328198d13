//! Users, load and workers, made up.

use routing::RouteTable;

use super::random::{Random, Wander, mix};
use super::{Options, Scenario};

/// Users that there are.
pub(super) const USERS: u64 = 50_000;
/// The user of rank `k` asks `k^-0.8` times as often as the first one, who so makes 2% of all requests.
pub(super) const ACTIVITY_EXPONENT: f64 = 0.8;
/// Standard deviations of the logarithm of a time: of all together, of users, of the load that both versions share, and
/// of each worker's own load. That of workers as such is an option.
pub(super) const SIGMA: f64 = 0.5;
pub(super) const USER_SIGMA: f64 = 0.2;
pub(super) const LOAD_SIGMA: f64 = 0.1;
pub(super) const OWN_LOAD_SIGMA: f64 = 0.02;
/// How long loads last, in seconds: the times in which their autocorrelation falls to 1/e.
pub(super) const LOAD_LASTS_S: f64 = 60.0;
pub(super) const OWN_LOAD_LASTS_S: f64 = 30.0;
/// Workers of the stable and of the new version.
pub(super) const WORKERS: [usize; 2] = [4, 2];
/// Share of the requests that fail on a good version.
pub(super) const BASELINE_ERRORS: f64 = 1e-4;
/// Medians of the time to the first token, between tokens, and to the end, in seconds.
const MEDIANS_S: [f64; 3] = [0.2, 0.02, 2.0];
/// Prompts: their share, tokens that are not cached, and what that does to the time to the first token.
const PROMPTS: [(f64, u64, f64); 3] = [(0.3, 40, 0.7), (0.5, 200, 1.0), (0.2, 1_500, 2.5)];
/// Of ten users one asks for short answers, half of which are cut; of the others' answers 1% are.
const CUT_SHARE: [f64; 2] = [0.5, 0.01];
/// Share of the answers without a text.
const EMPTY_SHARE: f64 = 1e-3;
/// In `bimodal`, how long short and long answers take, in usual answers, and the share of the long ones.
const BIMODAL: (f64, f64, f64) = (0.4, 4.0, 0.3);
/// In `drift`, the logarithm of how much slower both versions are in the end.
const DRIFT: f64 = 1.0;

/// Somebody who asks.
#[derive(Clone, Copy, Debug)]
struct User {
    /// A place on the line that is cut by weight, in parts of [`RouteTable::WEIGHT_TOTAL`].
    point: u32,
    /// Logarithm of how much longer its answers take.
    effect: f64,
}

/// The numbers of the world, for the foot of a table.
pub(super) fn in_words(options: &Options) -> String {
    let Options { requests_per_s, percent, minutes, worker_sigma, recorded } = options;
    let times = match recorded {
        None => format!("log-normal, sigma {SIGMA} in all: users {USER_SIGMA}"),
        Some(recorded) => format!("{} recorded ones", recorded.len()),
    };
    format!(
        "World: {requests_per_s} requests/s, {percent}% in the first step, {minutes} minutes; {USERS} users, activity \
         rank^-{ACTIVITY_EXPONENT}; times\n{times}, common load {LOAD_SIGMA} (lasts {LOAD_LASTS_S} s), workers \
         {worker_sigma}, their own load {OWN_LOAD_SIGMA} ({OWN_LOAD_LASTS_S} s);\n{} stable workers, {} new ones; {}% \
         errors on a good version.",
        WORKERS[0],
        WORKERS[1],
        BASELINE_ERRORS * 100.0
    )
}

/// All that is the same for a request whichever version answers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// From 0 on.
    pub(super) user: u64,
    /// Its place on the line that is cut by weight.
    pub(super) point: u32,
    pub(super) uncached_tokens: u64,
    pub(super) truncated: bool,
    pub(super) empty: bool,
    /// Fails on a version whose share of errors is above this.
    luck: f64,
    /// Which of a version's workers, in [0, 1).
    worker: f64,
    /// Logarithms of the three times.
    logs: [f64; 3],
}

/// An answer, or none.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) failed: bool,
    /// To the first token, between tokens, to the end.
    pub(super) times_s: [f64; 3],
}

/// One of a version's workers.
#[derive(Clone, Debug)]
struct Worker {
    effect: f64,
    load: Wander,
}

/// A world with a seed.
#[derive(Debug)]
pub(super) struct World {
    options: Options,
    scenario: Scenario,
    random: Random,
    users: Vec<User>,
    load: Wander,
    /// Of the stable version, then of the new one.
    workers: [Vec<Worker>; 2],
    second: u64,
}

impl World {
    pub(super) fn new(options: &Options, scenario: Scenario, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let salt = random.bits();
        let users = (0..USERS).map(|user| User {
            // As `routing` cuts its line.
            point: ((u128::from(mix(salt ^ mix(user))) * u128::from(RouteTable::WEIGHT_TOTAL)) >> 64) as u32,
            effect: USER_SIGMA * random.normal(),
        });
        let users = users.collect();
        let load = Wander::new(LOAD_SIGMA, LOAD_LASTS_S, &mut random);
        let mut worker = |_| Worker {
            effect: options.worker_sigma * random.normal(),
            load: Wander::new(OWN_LOAD_SIGMA, OWN_LOAD_LASTS_S, &mut random),
        };
        let workers = WORKERS.map(|count| (0..count).map(&mut worker).collect());
        Self { options: options.clone(), scenario, random, users, load, workers, second: 0 }
    }

    /// The requests of the next second.
    pub(super) fn next_second(&mut self) -> Vec<Request> {
        self.second += 1;
        self.load.step(&mut self.random);
        for worker in self.workers.iter_mut().flatten() {
            worker.load.step(&mut self.random);
        }
        let rate = match self.scenario {
            Scenario::LittleTraffic => 1.0,
            _ => self.options.requests_per_s,
        };
        let count = self.random.poisson(rate);
        (0..count).map(|_| self.request()).collect()
    }

    /// What a version, 0 for the stable one and 1 for the new one, makes of a request.
    pub(super) fn answer(&self, request: &Request, version: usize) -> Answer {
        let workers = &self.workers[version];
        let worker = &workers[(request.worker * workers.len() as f64) as usize];
        let (ratio, errors) = match version {
            0 => (1.0, BASELINE_ERRORS),
            _ => (self.scenario.ratio(), self.scenario.errors(BASELINE_ERRORS)),
        };
        let factor = ratio * (worker.effect + worker.load.value).exp();
        Answer { failed: request.luck < errors, times_s: request.logs.map(|log| factor * log.exp()) }
    }

    fn request(&mut self) -> Request {
        let random = &mut self.random;
        // The inverse of the distribution function, ranks taken as continuous from 1 on.
        let rest = 1.0 - ACTIVITY_EXPONENT;
        let top = (USERS as f64 + 1.0).powf(rest) - 1.0;
        let rank = (1.0 + random.unit() * top).powf(1.0 / rest);
        let user = (rank as u64 - 1).min(USERS - 1);
        let User { point, effect } = self.users[user as usize];
        let kind = random.unit();
        let mut share = 0.0;
        let prompt = PROMPTS.iter().find(|prompt| {
            share += prompt.0;
            kind < share
        });
        let (_, uncached_tokens, slower) = *prompt.unwrap_or(&PROMPTS[1]);
        let mut logs = self.own(effect);
        let drift = match self.scenario {
            Scenario::Drift => DRIFT * self.second as f64 / (60.0 * self.options.minutes),
            _ => 0.0,
        };
        let random = &mut self.random;
        logs.iter_mut()
            .zip(MEDIANS_S)
            .for_each(|(log, median)| *log += median.ln() + self.load.value + drift);
        logs[0] += slower.ln();
        if self.scenario == Scenario::Bimodal {
            let (short, long, share) = BIMODAL;
            logs[2] += if random.unit() < share { long.ln() } else { short.ln() };
        }
        Request {
            user,
            point,
            uncached_tokens,
            truncated: random.unit() < CUT_SHARE[usize::from(!user.is_multiple_of(10))],
            empty: random.unit() < EMPTY_SHARE,
            luck: random.unit(),
            worker: random.unit(),
            logs,
        }
    }

    /// The request's own part of its three times, which go along with each other: as logarithms, around 0.
    fn own(&mut self, user_effect: f64) -> [f64; 3] {
        let random = &mut self.random;
        if let Some(recorded) = self.options.recorded.as_deref().filter(|recorded| !recorded.is_empty()) {
            return [(); 3].map(|()| recorded[(random.unit() * recorded.len() as f64) as usize]);
        }
        let others = USER_SIGMA.powi(2)
            + LOAD_SIGMA.powi(2)
            + OWN_LOAD_SIGMA.powi(2)
            + self.options.worker_sigma.powi(2);
        let sigma = (SIGMA.powi(2) - others).max(0.0).sqrt() * 0.5_f64.sqrt();
        let ((common, first), (second, third)) = (random.normals(), random.normals());
        [first, second, third].map(|own| user_effect + sigma * (common + own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(scenario: Scenario) -> (World, Vec<Request>) {
        let mut world = World::new(&Options::default(), scenario, 1);
        let requests = (0..200).flat_map(|_| world.next_second()).collect();
        (world, requests)
    }

    #[test]
    fn logarithms_of_times_spread_as_they_are_said_to() {
        let (world, requests) = world(Scenario::Aa);
        let logs: Vec<f64> =
            requests.iter().map(|request| world.answer(request, 0).times_s[2].ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / logs.len() as f64;
        assert!((variance.sqrt() - SIGMA).abs() < 0.05, "{}", variance.sqrt());
    }

    #[test]
    fn a_few_users_ask_for_much_and_a_twentieth_of_them_is_below_a_weight_of_500() {
        let (world, requests) = world(Scenario::Aa);
        let first = requests.iter().filter(|request| request.user == 0).count() as f64;
        assert!((0.01..0.03).contains(&(first / requests.len() as f64)), "{first}");
        let canary = world.users.iter().filter(|user| user.point < 500).count();
        assert!((2_300..2_700).contains(&canary), "{canary}");
    }

    #[test]
    fn a_slower_version_is_slower_by_just_as_much() {
        let (mut world, requests) = world(Scenario::Latency50);
        world.workers.iter_mut().flatten().for_each(|worker| {
            worker.effect = 0.0;
            worker.load.value = 0.0;
        });
        let ratio = world.answer(&requests[0], 1).times_s[0] / world.answer(&requests[0], 0).times_s[0];
        assert!((ratio - 1.5).abs() < 1e-9, "{ratio}");
    }
}
