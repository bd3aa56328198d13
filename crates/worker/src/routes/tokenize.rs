//! `POST /tokenize` and `/detokenize`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::{
    ApiError, ChatRequest, DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse,
};

use super::chat::encode_chat;
use crate::app::App;
use crate::body::RequestBody;
use crate::error::Failed;

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    body: RequestBody,
) -> Result<Json<TokenizeResponse>, Failed> {
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
            encode_chat(&model, &chat)
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
