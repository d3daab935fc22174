//! What statements ask of the columns of a table.

use std::{collections::BTreeMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName,
    ObjectNamePart, Select, TableFactor, Visit, Visitor,
};

/// In how many statements a column is asked for in a way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// `=`, IN.
    pub(super) equal: u64,
    /// `<`, BETWEEN and their like.
    pub(super) range: u64,
    /// LIKE.
    pub(super) pattern: u64,
    /// `@@`.
    pub(super) words: u64,
    /// `->`, `@>` and their like, in conditions.
    pub(super) document: u64,
    /// As a side of a place, the latitude first.
    pub(super) place: u64,
}

/// Of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Workload {
    /// Statements that read it.
    pub(super) statements: u64,
    /// Those of them that group its rows.
    pub(super) grouped: u64,
    pub(super) columns: BTreeMap<String, Uses>,
    /// Latitude and longitude of conditions on places.
    pub(super) places: BTreeMap<(String, String), u64>,
}

impl Workload {
    /// Statements that cannot be read say nothing.
    pub(super) fn of<'a>(table: &str, statements: impl Iterator<Item = &'a str>) -> Self {
        let mut workload = Self::default();
        for text in statements {
            let parsed = tidemill_query::parse::parse(text).unwrap_or_default();
            for statement in &parsed {
                let mut found = Found { table, uses: Self::default() };
                let _: ControlFlow<()> = statement.visit(&mut found);
                workload.add(found.uses);
            }
        }
        workload
    }

    pub(super) fn of_column(&self, column: &str) -> Uses {
        self.columns.get(column).copied().unwrap_or_default()
    }

    /// One statement's: however often it says something, it counts once.
    fn add(&mut self, of: Self) {
        self.statements += of.statements.min(1);
        self.grouped += of.grouped.min(1);
        for (name, uses) in of.columns {
            let total = self.columns.entry(name).or_default();
            total.equal += uses.equal.min(1);
            total.range += uses.range.min(1);
            total.pattern += uses.pattern.min(1);
            total.words += uses.words.min(1);
            total.document += uses.document.min(1);
            total.place += uses.place.min(1);
        }
        for (place, count) in of.places {
            *self.places.entry(place).or_default() += count.min(1);
        }
    }
}

struct Found<'a> {
    table: &'a str,
    uses: Workload,
}

impl Visitor for Found<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let mut relations = select
            .from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
        let is_read = relations.any(|relation| {
            matches!(relation, TableFactor::Table { name, args: None, .. } if last(name).is_some_and(|name| folded(name) == self.table))
        });
        if !is_read {
            return ControlFlow::Continue(());
        }
        self.uses.statements += 1;
        if !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty()) {
            self.uses.grouped += 1;
        }
        if let Some(condition) = &select.selection {
            self.condition(condition);
        }
        ControlFlow::Continue(())
    }
}

impl Found<'_> {
    fn note(&mut self, expr: &Expr, note: fn(&mut Uses)) {
        if let Some(column) = column(expr) {
            note(self.uses.columns.entry(column).or_default());
        }
    }

    fn condition(&mut self, condition: &Expr) {
        match condition {
            Expr::Nested(inner) => self.condition(inner),
            Expr::UnaryOp { expr, .. } => self.condition(expr),
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                self.condition(left);
                self.condition(right);
            }
            Expr::BinaryOp { left, op, right } => {
                let note: fn(&mut Uses) = match op {
                    BinaryOperator::Eq => |uses| uses.equal += 1,
                    BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
                        |uses| uses.range += 1
                    }
                    BinaryOperator::AtAt => |uses| uses.words += 1,
                    BinaryOperator::AtArrow | BinaryOperator::Question => |uses| uses.document += 1,
                    _ => |_| {},
                };
                // A comparison of two columns joins; no index helps it.
                match (column(left), column(right)) {
                    (Some(_), None) => self.note(left, note),
                    (None, Some(_)) => self.note(right, note),
                    _ => {}
                }
                self.inside(left);
                self.inside(right);
            }
            Expr::InList { expr, negated: false, .. } => self.note(expr, |uses| uses.equal += 1),
            Expr::Between { expr, negated: false, .. } => self.note(expr, |uses| uses.range += 1),
            Expr::Like { expr, .. } | Expr::ILike { expr, .. } => self.note(expr, |uses| uses.pattern += 1),
            other => self.inside(other),
        }
    }

    /// Documents and places that an operand is made of.
    fn inside(&mut self, operand: &Expr) {
        match operand {
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => self.inside(inner),
            Expr::BinaryOp {
                left,
                op:
                    BinaryOperator::Arrow
                    | BinaryOperator::LongArrow
                    | BinaryOperator::HashArrow
                    | BinaryOperator::HashLongArrow,
                ..
            } => {
                self.note(left, |uses| uses.document += 1);
                self.inside(left);
            }
            Expr::Function(call) if last(&call.name).is_some_and(|name| folded(name).starts_with("geo_")) => {
                let FunctionArguments::List(list) = &call.args else { return };
                let columns: Vec<String> = list
                    .args
                    .iter()
                    .filter_map(|argument| match argument {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => column(expr),
                        _ => None,
                    })
                    .collect();
                if let [latitude, longitude, ..] = columns.as_slice() {
                    *self.uses.places.entry((latitude.clone(), longitude.clone())).or_default() += 1;
                    for place in [latitude, longitude] {
                        self.uses.columns.entry(place.clone()).or_default().place += 1;
                    }
                }
            }
            _ => {}
        }
    }
}

/// The column that an expression is.
fn column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(folded(name)),
        Expr::CompoundIdentifier(names) => names.last().map(folded),
        Expr::Nested(inner) => column(inner),
        _ => None,
    }
}

fn last(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(ObjectNamePart::as_ident)
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_say_what_they_ask() {
        let statements = [
            "SELECT count(*) FROM t WHERE City = 'a' AND (price > $1 OR city = 'b')",
            "SELECT city, sum(x) FROM public.t AS u WHERE u.city IN ('a', 'b') AND 3 < u.price GROUP BY city",
            "SELECT * FROM (SELECT * FROM t WHERE doc->'a'->>'b' = 'c' AND note @@ 'word') s WHERE city = 'x'",
            "SELECT * FROM t JOIN other ON t.id = other.id WHERE t.id = other.no AND name LIKE 'a%' AND ts BETWEEN $1 AND $2",
            "SELECT count(*) FROM t WHERE geo_distance(lat, lng, 1, 2) < 500",
            "SELECT city = 'a' FROM other WHERE city = 'a'",
            "SELECT no SQL (",
        ];
        let found = Workload::of("t", statements.into_iter());
        assert_eq!((found.statements, found.grouped), (5, 1));
        let uses = |name: &str| found.of_column(name);
        assert_eq!(uses("city"), Uses { equal: 2, ..Uses::default() });
        assert_eq!(uses("price"), Uses { range: 2, ..Uses::default() });
        assert_eq!(uses("doc"), Uses { document: 1, ..Uses::default() });
        assert_eq!(uses("note"), Uses { words: 1, ..Uses::default() });
        assert_eq!(uses("id"), Uses::default());
        assert_eq!(uses("name"), Uses { pattern: 1, ..Uses::default() });
        assert_eq!(uses("ts"), Uses { range: 1, ..Uses::default() });
        assert_eq!(found.places, BTreeMap::from([(("lat".to_owned(), "lng".to_owned()), 1)]));
    }
}
