//! The statements that Tidemill adds to SQL, as parsed: names and texts, nothing resolved yet.

use std::ops::Range;

use datafusion::sql::sqlparser::ast;
use tidemill_query::functions::user::Language;
use tidemill_storage::schema::{Compression, DataType, Merge};

use crate::catalog::definition::{Comparison, RuleAction};

/// One statement and the bytes of the input that it was read from (without its semicolon).
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub kind: StatementKind,
    pub span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// Ours: [`crate::ddl`] executes it.
    Ddl(Box<Ddl>),
    /// Everything else, parsed in the PostgreSQL dialect.
    Other(Box<ast::Statement>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ddl {
    CreateSource(CreateSource),
    CreateTable(CreateTable),
    CreateSink(CreateSink),
    CreateView(CreateView),
    CreateIndex(CreateIndex),
    CreateFunction(CreateFunction),
    CreatePipeline(CreatePipeline),
    CreateRule(CreateRule),
    AlterRule(AlterRule),
    AlterPipeline(AlterPipeline),
    AlterTable(AlterTable),
    AlterSource(AlterSource),
    AlterSink(AlterSink),
    CreateSubject(CreateSubject),
    AlterSubject(AlterSubject),
    DropSubject(DropSubject),
    Drop(Drop),
    Truncate(Truncate),
}

/// The tag of EXPLAIN CREATE PIPELINE.
pub const EXPLAIN: &str = "EXPLAIN";
/// The tag of ALTER SUBJECT … PROPOSE, which changes nothing.
pub const PROPOSE: &str = "PROPOSE";
/// The tag of an INSERT that begins a pipeline.
pub const INSERT: &str = "INSERT 0 0";

impl Ddl {
    /// The command tag that Postgres clients see.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::CreateSource(_) => "CREATE SOURCE",
            Self::CreateTable(_) => "CREATE TABLE",
            Self::CreateSink(_) => "CREATE SINK",
            Self::CreateView(_) => "CREATE VIEW",
            Self::CreateIndex(_) => "CREATE INDEX",
            Self::CreateFunction(_) => "CREATE FUNCTION",
            Self::CreatePipeline(CreatePipeline { explain: true, .. }) => EXPLAIN,
            Self::CreatePipeline(CreatePipeline { name: None, .. }) => INSERT,
            Self::CreatePipeline(_) => "CREATE PIPELINE",
            Self::CreateRule(_) => "CREATE RULE",
            Self::AlterRule(_) => "ALTER RULE",
            Self::AlterPipeline(_) => "ALTER PIPELINE",
            Self::AlterTable(_) => "ALTER TABLE",
            Self::AlterSource(_) => "ALTER SOURCE",
            Self::AlterSink(_) => "ALTER SINK",
            Self::CreateSubject(_) => "CREATE SUBJECT",
            Self::AlterSubject(AlterSubject { action: AlterSubjectAction::Propose(_), .. }) => PROPOSE,
            Self::AlterSubject(_) => "ALTER SUBJECT",
            Self::DropSubject(_) => "DROP SUBJECT",
            Self::Drop(Drop { kind: ObjectKind::Table, .. }) => "DROP TABLE",
            Self::Drop(Drop { kind: ObjectKind::Source, .. }) => "DROP SOURCE",
            Self::Drop(Drop { kind: ObjectKind::Sink, .. }) => "DROP SINK",
            Self::Drop(Drop { kind: ObjectKind::View, .. }) => "DROP VIEW",
            Self::Drop(Drop { kind: ObjectKind::Index, .. }) => "DROP INDEX",
            Self::Drop(Drop { kind: ObjectKind::Pipeline, .. }) => "DROP PIPELINE",
            Self::Drop(Drop { kind: ObjectKind::Function, .. }) => "DROP FUNCTION",
            Self::Drop(Drop { kind: ObjectKind::Rule, .. }) => "DROP RULE",
            Self::Truncate(_) => "TRUNCATE TABLE",
        }
    }
}

/// A name as it was resolved by Postgres' rules (unquoted is lower case), and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub value: String,
    /// In characters from 1.
    pub position: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateSource {
    pub name: Name,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDefinition>,
    pub primary_key: Vec<Name>,
    pub watermark: Option<Watermark>,
    pub checks: Vec<Check>,
    pub options: Vec<OptionPair>,
    pub infer: Option<Infer>,
}

/// INFER, instead of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Infer {
    /// Messages to look at.
    pub sample: usize,
    pub position: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateSink {
    pub name: Name,
    pub if_not_exists: bool,
    /// Empty: those that each pipeline gives.
    pub columns: Vec<ColumnDefinition>,
    pub options: Vec<OptionPair>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub name: Name,
    pub if_not_exists: bool,
    /// Empty for CREATE TABLE … AS.
    pub columns: Vec<ColumnDefinition>,
    pub primary_key: Vec<Name>,
    pub options: Vec<OptionPair>,
    /// Names of options of another system, which mean nothing here.
    pub ignored: Vec<String>,
    pub sources: Vec<Name>,
    pub query: TableQuery,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    pub name: Name,
    pub or_replace: bool,
    /// Names of the first columns; the others are called what the query calls them.
    pub columns: Vec<Name>,
    pub query: Box<ast::Query>,
    pub query_position: u32,
}

/// What follows AS.
#[derive(Clone, Debug, PartialEq)]
pub enum TableQuery {
    None,
    /// `FROM SOURCE s AS SELECT items WHERE condition`: what becomes of each arriving row.
    Transform(Transform),
    /// `CREATE TABLE t AS SELECT …`: the first contents.
    Contents(Box<ast::Query>),
}

/// SQL texts, checked to be parseable; columns are not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// What stood between SELECT and WHERE, as one text.
    pub select: String,
    pub filter: Option<String>,
    pub position: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDefinition {
    pub name: Name,
    pub data_type: DataType,
    pub not_null: bool,
    /// A constant expression.
    pub default: Option<ast::Expr>,
    /// Where in the message the value stands; `None` is the top-level member of the column's name.
    pub path: Option<String>,
    /// The unit of a number that is a time: s, ms, us, ns.
    pub epoch: Option<String>,
    pub compression: Option<Compression>,
    /// And where it stands.
    pub merge: Option<(Merge, u32)>,
    /// Something accepted for compatibility and not kept, said to the client as a NOTICE.
    pub notice: Option<String>,
}

/// WATERMARK FOR column AS expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    pub column: Name,
    pub expression: String,
}

/// CONSTRAINT name CHECK (expression).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: Option<String>,
    pub expression: String,
    pub position: u32,
}

/// `key = value` of a WITH or SET list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionPair {
    pub key: Name,
    pub value: String,
    pub value_position: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateIndex {
    /// `None`: made of the names of table, column and kind.
    pub name: Option<Name>,
    pub if_not_exists: bool,
    pub table: Name,
    /// What stands after USING.
    pub method: Option<Name>,
    /// Empty for a star-tree.
    pub columns: Vec<Name>,
    pub star_tree: Option<StarTreeClause>,
    pub options: Vec<OptionPair>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateFunction {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub arguments: Vec<FunctionArgument>,
    pub returns: DataType,
    pub language: Language,
    /// CALLED ON NULL INPUT.
    pub called_on_null: bool,
    pub module: Module,
    pub module_position: u32,
    /// What the module calls it; `None`: the same. Of a model the output; `None`: the first that fits.
    pub symbol: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FunctionArgument {
    pub name: Option<String>,
    pub data_type: DataType,
}

/// Where a module or a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// A file of the server's machine.
    Path(String),
    /// It stands in the statement.
    Bytes(Vec<u8>),
}

/// CREATE PIPELINE, or an INSERT that begins one.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatePipeline {
    /// `None`: made of the name of the table.
    pub name: Option<Name>,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub targets: Vec<PipelineTarget>,
    /// BY NAME.
    pub by_name: bool,
    pub options: Vec<OptionPair>,
    /// As it was written, checked to be parseable.
    pub query: String,
    pub query_position: u32,
    /// EXPLAIN CREATE PIPELINE: nothing is made.
    pub explain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineTarget {
    /// A table, or a sink.
    pub table: Name,
    /// Whether it says that it is a sink.
    pub is_sink: bool,
    /// Empty: the first columns of it.
    pub columns: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPipeline {
    pub name: Name,
    pub if_exists: bool,
    pub action: AlterPipelineAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterPipelineAction {
    Pause,
    Resume,
    Rename(Name),
    /// `SET (…)`.
    Set(Vec<OptionPair>),
    /// `RESTART [FROM CHECKPOINT n]`.
    Restart {
        checkpoint: Option<u64>,
        position: u32,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlterSource {
    pub name: Name,
    pub if_exists: bool,
    pub action: AlterSourceAction,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AlterSourceAction {
    /// `SET (…)`.
    SetOptions(Vec<OptionPair>),
    /// `RESET OFFSETS TO 'start'`.
    ResetOffsets { start: String, position: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterSink {
    pub name: Name,
    pub if_exists: bool,
    pub action: AlterSinkAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterSinkAction {
    /// `SET (…)`.
    Set(Vec<OptionPair>),
    Rename(Name),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSubject {
    pub name: Name,
    pub if_not_exists: bool,
    pub options: Vec<OptionPair>,
    pub schema: SchemaText,
}

/// A schema, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaText {
    pub text: String,
    pub position: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterSubject {
    pub name: Name,
    pub if_exists: bool,
    pub action: AlterSubjectAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterSubjectAction {
    Propose(SchemaText),
    /// `ADD VERSION '…' [FORCE]`.
    Add {
        schema: SchemaText,
        force: bool,
    },
    /// `SET (…)`.
    Set(Vec<OptionPair>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSubject {
    pub name: Name,
    pub if_exists: bool,
    /// `None`: all of them.
    pub version: Option<u32>,
    pub force: bool,
}

/// What a star-tree is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarTreeClause {
    pub position: u32,
    /// `None`: AUTO.
    pub dimensions: Option<Vec<StarDimension>>,
    /// `None`: what is usual.
    pub aggregates: Option<Vec<StarAggregate>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarDimension {
    pub column: Name,
    /// A function of the column, its text argument and where that stands.
    pub function: Option<(Name, String, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarAggregate {
    pub function: Name,
    /// `None`: `*`.
    pub column: Option<Name>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlterTable {
    pub name: Name,
    pub if_exists: bool,
    pub actions: Vec<AlterAction>,
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one statement holds few of them")]
pub enum AlterAction {
    AddColumn { column: ColumnDefinition, if_not_exists: bool },
    DropColumn { name: Name, if_exists: bool },
    RenameColumn { from: Name, to: Name },
    SetType { column: Name, data_type: DataType, position: u32 },
    SetCompression { column: Name, compression: Compression },
    SetOptions(Vec<OptionPair>),
    RenameTo(Name),
    PauseIngestion,
    ResumeIngestion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Table,
    Source,
    Sink,
    View,
    Index,
    Pipeline,
    Function,
    Rule,
}

impl ObjectKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Source => "source",
            Self::Sink => "sink",
            Self::View => "view",
            Self::Index => "index",
            Self::Pipeline => "pipeline",
            Self::Function => "function",
            Self::Rule => "rule",
        }
    }
}

/// What is done about a pipeline when a number of it is out of bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRule {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// `None`: all.
    pub pipeline: Option<Name>,
    pub metric: Name,
    pub comparison: Comparison,
    /// A number, a duration, a size or a percentage.
    pub bound: String,
    pub bound_position: u32,
    /// How long that has to be so, in microseconds.
    pub hold_us: i64,
    pub action: RuleAction,
    /// Of an action that is SET: what it sets.
    pub options: Vec<OptionPair>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterRule {
    pub name: Name,
    pub if_exists: bool,
    pub enabled: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drop {
    pub kind: ObjectKind,
    pub names: Vec<Name>,
    pub if_exists: bool,
    pub cascade: bool,
}

/// What else TRUNCATE says (ONLY, identities, CASCADE) makes no difference: there are no tables below others, no sequences and no references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    pub names: Vec<Name>,
}
