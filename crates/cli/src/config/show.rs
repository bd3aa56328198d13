//! The configuration in force, as a file.

use anyhow::Result;
use toml::Value;

use super::Config;

const SECRETS: [&str; 3] = ["api_key", "worker_api_key", "salt_secret"];

/// Whether a key of this name holds what nobody should see.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// TOML text with secrets masked.
pub(super) fn show(config: &Config) -> Result<String> {
    let mut value = Value::try_from(config)?;
    mask(&mut value);
    Ok(toml::to_string_pretty(&value)?)
}

fn mask(value: &mut Value) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                if is_secret(key) {
                    *value = Value::String("***".into());
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}
