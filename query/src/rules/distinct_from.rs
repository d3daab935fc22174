//! `a IS DISTINCT FROM b AND c` is `(a IS DISTINCT FROM b) AND c`.
//!
//! The parser takes all that follows DISTINCT FROM for its right side, whatever binds it. Since parentheses are nodes of the tree, what was
//! written without any can be read off the tree in its order and put together again by the precedences of PostgreSQL: IS before NOT
//! before AND before OR.

use std::{collections::VecDeque, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Statement, UnaryOperator, Value, VisitMut, VisitorMut};

/// Puts all such expressions of the statement right.
pub(super) fn rewrite(statement: &mut Statement) {
    let _ = VisitMut::visit(statement, &mut Rewriter);
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if swallowed(expr) {
            let mut pieces = VecDeque::new();
            flatten(std::mem::replace(expr, Expr::Value(Value::Null.into())), &mut pieces);
            *expr = any(&mut pieces);
        }
        ControlFlow::Continue(())
    }
}

/// Whether the right side of some DISTINCT FROM, not in parentheses, holds what binds less.
fn swallowed(expr: &Expr) -> bool {
    match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => is_region(right),
        // What is on the left was complete when AND or OR came.
        Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, right, .. } => swallowed(right),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => swallowed(expr),
        _ => false,
    }
}

/// Whether the expression is one of those that are put together here.
fn is_region(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. }
            | Expr::UnaryOp { op: UnaryOperator::Not, .. }
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
    )
}

enum Piece {
    Operand(Box<Expr>),
    Not,
    And,
    Or,
    Distinct,
    NotDistinct,
}

/// The pieces in the order in which they were written.
fn flatten(expr: Expr, pieces: &mut VecDeque<Piece>) {
    let mut both = |left: Expr, piece, right: Expr| {
        flatten(left, pieces);
        pieces.push_back(piece);
        flatten(right, pieces);
    };
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => both(*left, Piece::And, *right),
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => both(*left, Piece::Or, *right),
        Expr::IsDistinctFrom(left, right) => both(*left, Piece::Distinct, *right),
        Expr::IsNotDistinctFrom(left, right) => both(*left, Piece::NotDistinct, *right),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            pieces.push_back(Piece::Not);
            flatten(*expr, pieces);
        }
        operand => pieces.push_back(Piece::Operand(Box::new(operand))),
    }
}

fn any(pieces: &mut VecDeque<Piece>) -> Expr {
    let mut left = all(pieces);
    while pieces.pop_front_if(|piece| matches!(piece, Piece::Or)).is_some() {
        let right = all(pieces);
        left = Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Or, right: Box::new(right) };
    }
    left
}

fn all(pieces: &mut VecDeque<Piece>) -> Expr {
    let mut left = negated(pieces);
    while pieces.pop_front_if(|piece| matches!(piece, Piece::And)).is_some() {
        let right = negated(pieces);
        left = Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) };
    }
    left
}

fn negated(pieces: &mut VecDeque<Piece>) -> Expr {
    let mut times = 0;
    while pieces.pop_front_if(|piece| matches!(piece, Piece::Not)).is_some() {
        times += 1;
    }
    let expr = distinct(pieces);
    (0..times).fold(expr, |expr, _| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) })
}

fn distinct(pieces: &mut VecDeque<Piece>) -> Expr {
    let mut left = operand(pieces);
    loop {
        let made: fn(Box<Expr>, Box<Expr>) -> Expr = match pieces.front() {
            Some(Piece::Distinct) => Expr::IsDistinctFrom,
            Some(Piece::NotDistinct) => Expr::IsNotDistinctFrom,
            _ => return left,
        };
        pieces.pop_front();
        let right = operand(pieces);
        left = made(Box::new(left), Box::new(right));
    }
}

fn operand(pieces: &mut VecDeque<Piece>) -> Expr {
    match pieces.front() {
        Some(Piece::Operand(_)) => {}
        // `a IS DISTINCT FROM NOT b`: no grammar has it but this parser's, which took it for its right side.
        Some(Piece::Not) => return negated(pieces),
        _ => return Expr::Value(Value::Null.into()),
    }
    match pieces.pop_front() {
        Some(Piece::Operand(expr)) => *expr,
        _ => Expr::Value(Value::Null.into()),
    }
}
