//! Functions of users as they run, and their modules and models in the data directory.
//!
//! A module is kept by the hash of its content (`functions/<sha-256>.wasm`, a model `….onnx`), complete and synced before a definition names it; the file that CREATE FUNCTION named is not needed afterwards.
//! What no definition names is deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::Path,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;
use ring::digest::{SHA256, digest};
use tidemill_query::functions::{
    user::{Declaration, Language, UserFunction},
    wasm::Sandbox,
};

use super::{directory::DataDirectory, instance::Instance};
use crate::{
    catalog::definition::FunctionDefinition,
    session::error::{Result, SqlError, state},
};

/// Longest module or model.
const MODULE_BYTES_MAX: u64 = 16 << 20;

/// What makes them callable; who is called, the engine knows.
#[derive(Debug, Default)]
pub struct Functions {
    /// Made for the first of them.
    sandbox: OnceLock<Sandbox>,
    /// Why one cannot be called.
    broken: RwLock<BTreeMap<String, String>>,
}

impl Functions {
    /// Why a function cannot be called.
    pub fn broken(&self, name: &str) -> Option<String> {
        self.broken.read().get(name).cloned()
    }

    /// Checks a module or a model against what its definition says. Blocks for as long as compiling takes.
    pub fn compile(&self, definition: &FunctionDefinition, bytes: &[u8]) -> Result<Arc<UserFunction>> {
        if bytes.len() as u64 > MODULE_BYTES_MAX {
            let what = noun(definition.language);
            let message = format!("the {what} has {} bytes or more, and {MODULE_BYTES_MAX} are the most", bytes.len());
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message));
        }
        let arguments = definition.arguments.iter();
        let declaration = Declaration {
            oid: definition.oid,
            name: definition.name.clone(),
            arguments: arguments.map(|argument| (argument.name.clone(), argument.data_type.clone())).collect(),
            returns: definition.returns.clone(),
            called_on_null: definition.called_on_null,
        };
        let symbol = definition.symbol.as_str();
        let made = match definition.language {
            Language::Wasm => UserFunction::wasm(self.sandbox()?, declaration, bytes, symbol),
            Language::Model => UserFunction::model(declaration, bytes, (!symbol.is_empty()).then_some(symbol)),
        };
        made.map_err(|unfit| {
            let message = format!("function \"{}\" cannot be made: {}", definition.name, unfit.message);
            let error = SqlError::new(state::INVALID_FUNCTION_DEFINITION, message);
            match unfit.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })
    }

    fn sandbox(&self) -> Result<&Sandbox> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        let made = Sandbox::new().map_err(|error| {
            SqlError::internal(format!("functions in WebAssembly cannot run on this machine: {error}"))
        })?;
        Ok(self.sandbox.get_or_init(|| made))
    }

    /// Lets statements that are planned from now on call it.
    pub fn put(&self, instance: &Instance, made: &Arc<UserFunction>) -> Result<()> {
        self.broken.write().remove(&made.declaration().name);
        Ok(instance.engine()?.put_user_function(made)?)
    }

    /// What could be called so far.
    pub fn take(&self, instance: &Instance, name: &str) -> Result<Option<Arc<UserFunction>>> {
        Ok(instance.engine()?.take_user_function(name)?)
    }

    /// Its definition is gone.
    pub fn forget(&self, name: &str) {
        self.broken.write().remove(name);
    }

    /// Makes all functions callable at a start. What cannot be is named in the log and in `rt.functions`; the others can. Blocks.
    pub fn recover(&self, instance: &Instance) {
        for definition in instance.catalog.definitions().functions.values() {
            if let Err(error) = self.recover_one(instance, definition) {
                tracing::error!(function = definition.name, error = error.message, "the function cannot be called");
                self.broken.write().insert(definition.name.clone(), error.message);
            }
        }
        clean(instance);
    }

    fn recover_one(&self, instance: &Instance, definition: &FunctionDefinition) -> Result<()> {
        let path = instance.directory.functions().join(file_name(definition.language, &definition.module));
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        if hash(&bytes) != definition.module {
            let message = format!("file \"{}\" is damaged: its content is not what its name says", path.display());
            return Err(SqlError::new(state::DATA_CORRUPTED, message));
        }
        self.put(instance, &self.compile(definition, &bytes)?)
    }
}

fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_name(language: Language, module: &str) -> String {
    match language {
        Language::Wasm => format!("{module}.wasm"),
        Language::Model => format!("{module}.onnx"),
    }
}

fn noun(language: Language) -> &'static str {
    match language {
        Language::Wasm => "module",
        Language::Model => "model",
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> SqlError {
    let state = if error.kind() == ErrorKind::NotFound { state::UNDEFINED_FILE } else { state::IO_ERROR };
    SqlError::new(state, format!("could not read file \"{}\": {error}", path.display()))
}

/// The module or model in a file that a user names: little more of it than one may have, whatever the file is.
pub fn read(path: &str) -> Result<Vec<u8>> {
    let path = Path::new(path);
    let of_path = |error: std::io::Error| unreadable(path, &error);
    // Opening a pipe would wait for somebody to write into it.
    if !fs::metadata(path).map_err(of_path)?.is_file() {
        let message = format!("could not read file \"{}\": it is no regular file", path.display());
        return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(of_path)?;
    Ok(bytes)
}

/// Keeps a module or a model; what it is called.
pub fn keep(directory: &DataDirectory, language: Language, bytes: &[u8]) -> Result<String> {
    let (folder, module) = (directory.functions(), hash(bytes));
    let path = folder.join(file_name(language, &module));
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&folder)?.sync_all()
    };
    write().map_err(|error| {
        let what = noun(language);
        SqlError::new(state::IO_ERROR, format!("the {what} cannot be kept in \"{}\": {error}", folder.display()))
    })?;
    Ok(module)
}

/// Deletes modules and models that no definition names.
pub fn clean(instance: &Instance) {
    let definitions = instance.catalog.definitions();
    let named: BTreeSet<String> =
        definitions.functions.values().map(|function| file_name(function.language, &function.module)).collect();
    let Ok(entries) = fs::read_dir(instance.directory.functions()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| !named.contains(name))
            && let Err(error) = fs::remove_file(entry.path())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %entry.path().display(), %error, "a module or model that nothing names stays until the next start");
        }
    }
}
