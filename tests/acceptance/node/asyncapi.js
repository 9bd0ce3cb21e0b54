// Validates the AsyncAPI document on standard input against the official schema; prints the errors.
const addFormats = require("ajv-formats");
const Ajv = require("ajv");
const schema = require("@asyncapi/specs/schemas/3.0.0-without-$id.json");

const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);
const validate = ajv.compile(schema);
validate(JSON.parse(require("fs").readFileSync(0, "utf8")));
console.log(JSON.stringify(validate.errors ?? []));
