//! The configuration in force, as a file.

use anyhow::Result;
use toml::Value;

use super::Config;

const SECRETS: [&str; 5] =
    ["api_key", "worker_api_key", "salt_secret", "controller_api_key", "gateway_api_key"];

/// What is shown of a secret.
pub(super) const MASK: &str = "***";

/// Whether a key of this name holds what nobody should see.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// TOML text. A secret that is set stands there as a comment: a file made of this must not set it to its mask.
pub(super) fn show(config: &Config) -> Result<String> {
    let mut value = Value::try_from(config)?;
    mask(&mut value);
    let text = toml::to_string_pretty(&value)?;
    Ok(text.lines().map(|line| format!("{}{line}\n", if is_masked(line) { "# " } else { "" })).collect())
}

fn is_masked(line: &str) -> bool {
    let Some((key, value)) = line.split_once(" = ") else { return false };
    // A password inside an address is masked by the address's owner.
    (is_secret(key) && value.trim_matches('"') == MASK) || (key == "redis_url" && value.contains("://***@"))
}

fn mask(value: &mut Value) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                if is_secret(key) {
                    *value = Value::String(MASK.into());
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}
