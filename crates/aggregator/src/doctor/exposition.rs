//! Numbers out of a text exposition.

use crate::metrics::text::pairs;

/// One scrape.
pub struct Exposition(pub String);

impl Exposition {
    /// The sum over every series of that name; `None` where there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values = self
            .series(name)
            .filter_map(|(_, value)| value.parse().ok());
        values.fold(None, |sum: Option<f64>, value: f64| {
            Some(sum.unwrap_or(0.0) + value)
        })
    }

    /// The values of that label among the series of that name that are not zero.
    pub fn label_values(&self, name: &str, label: &str) -> Vec<String> {
        let alive = self.series(name).filter(|(_, value)| *value != "0");
        alive
            .filter_map(|(labels, _)| pairs(labels).find(|(name, _)| *name == label))
            .map(|(_, value)| value)
            .collect()
    }

    /// Labels and value of each.
    fn series<'e>(&'e self, name: &str) -> impl Iterator<Item = (&'e str, &'e str)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.strip_suffix('}').unwrap_or(labels);
            (metric == name).then_some((labels, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_name() {
        let text = "# TYPE a counter\na{v=\"1\"} 2\na{v=\"2\",w=\"x\"} 0\na{v=\"3\"} 0.5\nab 9\n";
        let scrape = Exposition(text.to_owned());
        assert_eq!(scrape.sum("a"), Some(2.5));
        assert_eq!(scrape.sum("ab"), Some(9.0));
        assert_eq!(scrape.sum("b"), None);
        assert_eq!(scrape.label_values("a", "v"), ["1", "3"]);
        let text = r#"a{other_v="x",v="a\"b\\c, v=\"d\n"} 2"#;
        let scrape = Exposition(text.to_owned());
        assert_eq!(scrape.label_values("a", "v"), ["a\"b\\c, v=\"d\n"]);
    }
}
