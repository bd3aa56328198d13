//! `POST /tokenize` and `/detokenize`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http_server::Failed;
use protocol::{
    ApiError, ChatRequest, DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse,
};
use tokio::sync::SemaphorePermit;

use super::chat::encode_chat;
use crate::app::{App, UnderWay};
use crate::body::RequestBody;
use crate::error::overloaded;

/// A request without an answer of the engine's has places of its own, so that it takes none of those.
fn take_place(app: &App) -> Result<(UnderWay, SemaphorePermit<'_>), ApiError> {
    let under_way = app.enter()?;
    let place = app.tokenizations.try_acquire();
    Ok((under_way, place.map_err(|_| overloaded("all places for tokenization are taken"))?))
}

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    body: RequestBody,
) -> Result<Json<TokenizeResponse>, Failed> {
    let _place = take_place(&app)?;
    let request: TokenizeRequest = body.parse_one(&app).await?;
    let name = request.model.clone().unwrap_or_else(|| app.model.name().to_owned());
    app.check_model(&name)?;
    let model = Arc::clone(&app.model);
    let work = move || match (request.prompt, request.messages) {
        (Some(prompt), None) => model
            .tokenizer()
            .encode(&prompt, request.add_special_tokens.unwrap_or(true), true)
            .map_err(|error| ApiError::invalid("prompt", error.to_string())),
        (None, Some(messages)) => {
            let add_generation_prompt = request.add_generation_prompt;
            let chat =
                ChatRequest { model: name, messages, add_generation_prompt, chat_template_kwargs: None };
            chat.validate()?;
            // How far it is too long is what people come here to ask.
            encode_chat(&model, &chat, usize::MAX)
        }
        _ => Err(ApiError::invalid("prompt", "give either `prompt` or `messages`")),
    };
    let tokens = app.compute.run(work).await?;
    let max_model_len = app.max_model_len as u32;
    Ok(Json(TokenizeResponse { count: tokens.len(), max_model_len, tokens }))
}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    body: RequestBody,
) -> Result<Json<DetokenizeResponse>, Failed> {
    let _place = take_place(&app)?;
    let request: DetokenizeRequest = body.parse_one(&app).await?;
    app.check_model(request.model.as_deref().unwrap_or(app.model.name()))?;
    let model = Arc::clone(&app.model);
    let work = move || {
        let vocab_size = model.tokenizer().vocab_size();
        match request.tokens.iter().position(|id| *id as usize >= vocab_size) {
            Some(at) => {
                Err(ApiError::invalid(format!("tokens[{at}]"), format!("ids go up to {}", vocab_size - 1)))
            }
            None => Ok(model.tokenizer().decode(&request.tokens, false)),
        }
    };
    let prompt = app.compute.run(work).await?;
    Ok(Json(DetokenizeResponse { prompt }))
}
