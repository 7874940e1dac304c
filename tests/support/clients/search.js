const { Client } = require('pg');

async function main() {
  const { DATABASE_URL, TRANSACTION, TEXTS } = process.env;
  const client = new Client({ connectionString: DATABASE_URL });
  await client.connect();
  if (TRANSACTION !== 'autocommit') await client.query(TRANSACTION === 'begin' ? 'BEGIN' : 'BEGIN READ ONLY');
  for (const [i, text] of TEXTS.split('\n').entries()) {
    // every other one as a named statement, which stays prepared
    const name = i % 2 ? 'search' : undefined;
    const { rows } = await client.query({
      name, text: 'SELECT document_id, chunk FROM livedex.search($1, k => $2)', values: [text, 2],
    });
    for (const row of rows) console.log(`${i}\t${row.document_id}\t${row.chunk}`);
  }
  if (TRANSACTION !== 'autocommit') await client.query('COMMIT');
  await client.end();
}

main().catch((error) => { console.error(error); process.exit(1); });
