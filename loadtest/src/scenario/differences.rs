//! In what two scenarios differ.

use std::fmt;

use serde_json::Value;

use super::Scenario;

/// A setting that two scenarios have otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Its path, such as `arrivals.rate`.
    pub(crate) setting: String,
    /// The values; null where one has no such setting.
    pub(crate) values: [Value; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.values.each_ref().map(|value| match value {
            Value::Null => "not set".to_owned(),
            value => value.to_string(),
        });
        write!(f, "`{}` is {one} and {other}", self.setting)
    }
}

impl Scenario {
    /// The settings in which they differ, in the order of their paths.
    pub(crate) fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let [one, other] = [self, other].map(|scenario| serde_json::to_value(scenario).unwrap_or_default());
        collect("", &one, &other, &mut found);
        found
    }
}

fn collect(path: &str, one: &Value, other: &Value, found: &mut Vec<Difference>) {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            let new = others.keys().filter(|key| !fields.contains_key(*key));
            for key in fields.keys().chain(new) {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value =
                    |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                collect(&below, &value(fields), &value(others), found);
            }
        }
        _ if one == other => {}
        _ => found.push(Difference { setting: path.to_owned(), values: [one.clone(), other.clone()] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Arrivals;

    #[test]
    fn settings_are_told_by_their_paths_and_what_is_equal_is_left_out() {
        let one = Scenario { arrivals: Arrivals::Poisson { rate: 2.0 }, ..Scenario::default() };
        let mut other = Scenario { arrivals: Arrivals::Gamma { rate: 4.0, cv: 2.0 }, ..one.clone() };
        other.client.connections_max = 5;
        assert_eq!(one.differences(&one), []);
        let told: Vec<String> = one.differences(&other).iter().map(ToString::to_string).collect();
        let expected = [
            "`arrivals.kind` is \"poisson\" and \"gamma\"",
            "`arrivals.rate` is 2.0 and 4.0",
            "`arrivals.cv` is not set and 2.0",
            "`client.connections_max` is 10000 and 5",
        ];
        assert_eq!(told, expected);
    }
}
