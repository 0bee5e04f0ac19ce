//! The daily report as a page.

use std::fmt::Write;

use super::Daily;
use super::text::{BUDGET_HEADER, budget_cells, group_cells, sum_of_parts};
use crate::report::html::{document, escaped, table};
use crate::report::movers::Mover;
use crate::report::show;

/// The chart's height and the width of one day, in pixels.
const CHART: (i128, usize) = (120, 84);

impl Daily {
    /// The page: one file that needs nothing else.
    pub fn html(&self) -> String {
        let mut body = String::new();
        for line in self.headlines() {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(body, "<p>{}</p>", escaped(&line));
        }
        if !self.budgets.is_empty() {
            body.push_str("<h2>Budgets</h2>\n");
            body.push_str(&self.budgets_table());
        }
        body.push_str("<h2>Days</h2>\n");
        body.push_str(&self.chart());
        if !self.by.is_empty() {
            let by = self.by.join(" / ");
            let _ = writeln!(body, "<h2>By {}</h2>", escaped(&by));
            let header = [by.as_str(), "requests", "cost", "average", "change", "%"];
            let is_number = [false, true, true, true, true, true];
            let groups = self.moved.groups.iter().map(group_cells);
            body.push_str(&table(&header, &is_number, groups));
        }
        if !self.movers.is_empty() {
            body.push_str("<h2>Biggest movers</h2>\n<dl>\n");
            self.told_movers()
                .for_each(|mover| body.push_str(&told(mover)));
            body.push_str("</dl>\n");
        }
        document(&self.title(), &body)
    }

    fn budgets_table(&self) -> String {
        let mut html = String::from("<table>\n<thead><tr>");
        for cell in BUDGET_HEADER.iter().chain(&[""]) {
            let _ = write!(html, "<th>{}</th>", escaped(cell));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for state in &self.budgets {
            html.push_str("<tr>");
            for cell in budget_cells(state) {
                let _ = write!(html, "<td>{}</td>", escaped(&cell));
            }
            let used = state.used_per_mille().unwrap_or(0).max(0);
            let _ = writeln!(
                html,
                "<td><meter min=\"0\" max=\"1000\" high=\"999\" value=\"{used}\">{}</meter></td></tr>",
                show::percent(used)
            );
        }
        html.push_str("</tbody>\n</table>\n");
        html
    }

    /// A bar a day.
    fn chart(&self) -> String {
        let (height, step) = CHART;
        let most = self
            .days
            .iter()
            .map(|sum| sum.cost)
            .max()
            .unwrap_or(0)
            .max(1);
        let width = step * self.days.len();
        let mut svg = format!(
            "<svg role=\"img\" aria-label=\"cost of each day\" width=\"{width}\" height=\"{}\">\n",
            height + 40
        );
        for (n, sum) in self.days.iter().enumerate() {
            let bar = (sum.cost.max(0) / (most / height).max(1)).min(height);
            let (x, y) = (n * step, height - bar + 16);
            let day = sum.day.to_string();
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{bar}\"></rect>\
                 <text x=\"{}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\">{}</text>",
                x + 4,
                step - 12,
                x + 4,
                y - 4,
                escaped(&show::usd(sum.cost)),
                x + 4,
                height + 32,
                escaped(&day),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn told(mover: &Mover) -> String {
    let change = mover.change_per_mille().map(show::signed_percent);
    let change = change.map_or(String::new(), |change| format!(" ({change})"));
    format!(
        "<dt>{}: {}{}</dt>\n<dd>{}</dd>\n<dd class=\"quiet\">{}</dd>\n",
        escaped(&show::keys(&mover.key)),
        escaped(&show::signed_usd(mover.difference())),
        escaped(&change),
        escaped(&mover.reason),
        escaped(&sum_of_parts(mover)),
    )
}
