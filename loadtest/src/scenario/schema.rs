//! The format of scenario files as data: which keys there are, and what may stand behind each. The types' own reader
//! cannot tell on which line of a tagged section a mistake is; this one can. A test holds the two together.

/// What may stand behind a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Text in quotes.
    Text,
    /// `true` or `false`.
    Flag,
    /// A number with or without decimals.
    Number,
    /// A whole number from 0 on.
    Whole { max: u64 },
    /// A list of texts.
    Texts,
    /// A whole number, or a section that says how lengths are drawn.
    Length,
    /// Whatever it is.
    Anything,
    /// A section.
    Section(&'static [Field]),
    /// A section whose key `tag` says which fields it has beside it and `common`.
    Tagged { tag: &'static str, kinds: &'static [(&'static str, &'static [Field])], common: &'static [Field] },
    /// A list of sections.
    Sections(&'static Self),
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

const fn may(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, is_required: false }
}

const fn must(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, is_required: true }
}

const U32: Shape = Shape::Whole { max: u32::MAX as u64 };
/// As far as TOML's numbers go.
const U64: Shape = Shape::Whole { max: i64::MAX as u64 };

/// A scenario.
pub(super) const SCENARIO: &[Field] = &[
    may("question", Shape::Text),
    may("target", Shape::Text),
    may("model", Shape::Text),
    may("seed", U64),
    may("arrivals", Shape::Tagged { tag: "kind", kinds: ARRIVALS, common: &[] }),
    may("requests", U64),
    may("duration_s", Shape::Number),
    may("warmup", U64),
    may("prompts", Shape::Tagged { tag: "kind", kinds: PROMPTS, common: &[] }),
    may("tokenizer", Shape::Text),
    may("answers", Shape::Section(ANSWERS)),
    may("targets", Shape::Section(TARGETS)),
    may("faults", Shape::Sections(&FAULT)),
    may("client", Shape::Section(CLIENT)),
    may("scrape", Shape::Texts),
    may("usd_per_hour", Shape::Number),
];

const ARRIVALS: &[(&str, &[Field])] = &[
    ("closed_loop", &[must("users", U32), may("think_time_s", Shape::Number)]),
    ("constant", &[must("rate", Shape::Number)]),
    ("poisson", &[must("rate", Shape::Number)]),
    ("gamma", &[must("rate", Shape::Number), must("cv", Shape::Number)]),
    ("ramp", &[must("from", Shape::Number), must("to", Shape::Number)]),
    ("steps", &[must("steps", Shape::Sections(&STEP))]),
    ("trace", &[must("path", Shape::Text), may("speed", Shape::Number)]),
];

const STEP: Shape = Shape::Section(&[must("rate", Shape::Number), must("duration_s", Shape::Number)]);

const PROMPTS: &[(&str, &[Field])] = &[
    (
        "synthetic",
        &[
            must("tokens", Shape::Length),
            may("shared_prefix_tokens", U32),
            may("shared_prefixes", U32),
            may("repeats", Shape::Section(&[must("prompts", U64), must("exponent", Shape::Number)])),
        ],
    ),
    ("conversation", &[must("tokens", Shape::Length), must("turns", U32), may("system_tokens", U32)]),
    ("file", &[must("path", Shape::Text)]),
];

/// Lengths between two bounds, told by these keys.
pub(super) const UNIFORM: &[Field] = &[must("min", U32), must("max", U32)];
/// Log-normal lengths, told by these.
pub(super) const LOG_NORMAL: &[Field] =
    &[must("median", Shape::Number), must("sigma", Shape::Number), must("max", U32)];

const ANSWERS: &[Field] = &[
    may("max_tokens", Shape::Length),
    may("ignore_eos", Shape::Flag),
    may("temperature", Shape::Number),
    may("streamed", Shape::Number),
    may("return_token_ids", Shape::Flag),
    may("hash", Shape::Flag),
    may("reference", Shape::Text),
];

const TARGETS: &[Field] =
    &[may("ttft_ms", Shape::Number), may("tpot_ms", Shape::Number), may("end_to_end_ms", Shape::Number)];

const FAULT: Shape = Shape::Tagged {
    tag: "action",
    kinds: &[
        ("kill", &[must("pid", U32)]),
        ("pause", &[must("pid", U32), must("for_s", Shape::Number)]),
        ("inject", &[must("worker", Shape::Text), must("fault", Shape::Anything)]),
    ],
    common: &[must("at_s", Shape::Number)],
};

const CLIENT: &[Field] = &[
    may("connect_timeout_s", Shape::Number),
    may("request_timeout_s", Shape::Number),
    may("keep_alive", Shape::Flag),
    may("connections_max", U32),
];
