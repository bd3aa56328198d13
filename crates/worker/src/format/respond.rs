//! Drives answers to their end, as one body or as server-sent events.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::Event;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderValue, header};
use protocol::{ApiError, sse};

use super::{Collected, Format, usage_of};
use crate::answer::Answer;
use crate::app::UnderWay;
use crate::error::{cut_off, engine_failed};
use http_server::Compute;

/// Answers with more log-likelihoods than this are written off the runtime's threads.
const WRITE_INLINE_SCORES_MAX: usize = 512;

/// How the client wants its answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Answers a prompt.
    pub(crate) n: u32,
}

/// Answers in the form that was asked for. A failure before the first token is an HTTP error in either form.
/// `under_way` is held until the last byte has been handed over.
pub(crate) async fn respond<F: Format>(
    format: F,
    answers: Vec<Answer>,
    delivery: Delivery,
    compute: &Compute,
    under_way: UnderWay,
) -> Result<Response, ApiError> {
    if !delivery.stream {
        let collected = tokio::select! {
            collected = try_join_all(answers.into_iter().map(collect)) => collected?,
            () = under_way.cut.cancelled() => return Err(cut_off()),
        };
        let json = whole(format, collected, delivery.n, compute).await?;
        return Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response());
    }
    let progress = answers.iter().map(|_| Progress::default()).collect();
    // Every stream of events has a last one, so only the cut makes them end without.
    let mut events = merge(answers).take_until(under_way.cut.clone().cancelled_owned()).boxed();
    let Some(first) = events.next().await else { return Err(cut_off()) };
    if let (_, Event::Failed(failure)) = first {
        return Err(engine_failed(failure));
    }
    let events = stream::iter([first]).chain(events).boxed();
    let chunks = Chunks { format, events, delivery, progress, under_way };
    let body = Body::from_stream(stream::unfold(Some(chunks), |chunks| async move {
        let (bytes, rest) = chunks?.next().await;
        Some((Ok::<_, std::convert::Infallible>(bytes), rest))
    }));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

async fn whole<F: Format>(
    format: F,
    answers: Vec<Collected>,
    n: u32,
    compute: &Compute,
) -> Result<String, ApiError> {
    let num_scores =
        |answer: &Collected| answer.scores.len() + answer.prompt_scores.as_ref().map_or(0, Vec::len);
    let is_large = answers.iter().map(num_scores).sum::<usize>() > WRITE_INLINE_SCORES_MAX;
    let write = move || {
        let usage = usage_of(answers.iter().filter_map(|answer| answer.ended.as_ref()), n);
        format.whole(answers, usage)
    };
    if is_large { compute.run(move || Ok(write())).await } else { Ok(write()) }
}

async fn collect(mut answer: Answer) -> Result<Collected, ApiError> {
    let mut collected = Collected { index: answer.index, ..Collected::default() };
    loop {
        match answer.next().await {
            Event::PromptLogprobs(scores) => collected.prompt_scores = Some(scores),
            Event::Token(event) => {
                collected.text.push_str(&event.text);
                collected.tokens.push(event.token);
                collected.scores.extend(event.score);
            }
            Event::Ended(ended) => {
                collected.text.push_str(&ended.text);
                collected.ended = Some(ended);
                return Ok(collected);
            }
            Event::Failed(failure) => return Err(engine_failed(failure)),
        }
    }
}

/// All answers' events as they come, each with its answer's index.
fn merge(answers: Vec<Answer>) -> BoxStream<'static, (u32, Event)> {
    let streams = answers.into_iter().map(|answer| {
        let events = stream::unfold(Some(answer), |answer| async move {
            let mut answer = answer?;
            let event = answer.next().await;
            let index = answer.index;
            let last = matches!(event, Event::Ended(_) | Event::Failed(_));
            Some(((index, event), (!last).then_some(answer)))
        });
        events.boxed()
    });
    stream::select_all(streams).boxed()
}

struct Chunks<F> {
    format: F,
    events: BoxStream<'static, (u32, Event)>,
    delivery: Delivery,
    /// One for each answer, in the order of their indices.
    progress: Vec<Progress>,
    under_way: UnderWay,
}

/// How far one answer has come.
#[derive(Debug, Default)]
struct Progress {
    opened: bool,
    /// Characters of its tokens so far.
    offset: u32,
    ended: Option<engine::Ended>,
}

impl<F: Format> Chunks<F> {
    /// The bytes for the next event that has any, and what is left to come.
    async fn next(mut self) -> (Bytes, Option<Self>) {
        loop {
            let Some((index, event)) = self.events.next().await else {
                return (self.last(), None);
            };
            let Some(progress) = self.progress.get_mut(index as usize) else { continue };
            let mut text = String::new();
            if !std::mem::replace(&mut progress.opened, true) {
                text.extend(self.format.open(index).map(|chunk| sse::event(&chunk)));
            }
            match event {
                Event::PromptLogprobs(_) => {}
                Event::Token(token) => {
                    let chunk = self.format.token(index, &token, &mut progress.offset);
                    text.extend(chunk.map(|chunk| sse::event(&chunk)));
                }
                Event::Ended(ended) => {
                    text.push_str(&sse::event(&self.format.end(index, &ended)));
                    progress.ended = Some(ended);
                }
                // Said in the stream, which then ends without its end mark.
                Event::Failed(failure) => {
                    text.push_str(&sse::event(&engine_failed(failure).to_json()));
                    return (text.into(), None);
                }
            }
            if !text.is_empty() {
                return (text.into(), Some(self));
            }
        }
    }

    fn last(self) -> Bytes {
        let ended = || self.progress.iter().filter_map(|progress| progress.ended.as_ref());
        if ended().count() < self.progress.len() {
            return sse::event(&cut_off().to_json()).into();
        }
        let mut text = String::new();
        if self.delivery.include_usage {
            let usage = usage_of(ended(), self.delivery.n);
            text.push_str(&sse::event(&self.format.usage(usage)));
        }
        text.push_str(&sse::event(sse::DONE));
        drop(self.under_way);
        text.into()
    }
}
