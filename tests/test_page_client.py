"""The JavaScript example of docs/clients.md in a browser, with the changes that the guide names."""

from __future__ import annotations

from browser import chromium
from support import ROOT, TOKEN, Gateway

TERMINAL = "// What is left is the terminal."
IMPORT = "import WebSocket from 'ws';\n"
SCRIPT = """
async ([source, url, token]) => {
  const Client = new Function(`${source}; return Client;`)();
  let shown = '';
  const asked = [];
  const client = new Client(url, token, {
    show: (text) => { shown += text; },
    note: () => {},
    decide: async (what) => { asked.push(what); return true; },
  });
  await client.say('slow 3 0.01');
  client.socket.close();
  const turn = await client.say('run: echo from-the-browser');
  return { shown, asked, status: turn.status };
}
"""


def test_the_example_works_in_a_browser(gateway: Gateway) -> None:
    source, terminal, _ = (ROOT / "examples" / "client.mjs").read_text("utf-8").partition(TERMINAL)
    assert terminal and IMPORT in source
    with chromium() as browser:
        context = browser.new_context(bypass_csp=True)  # the test brings its script by eval; a page would by a file
        page = context.new_page()
        page.goto(gateway.url)
        found = page.evaluate(SCRIPT, [source.replace(IMPORT, ""), gateway.url, TOKEN])
    assert found["shown"].startswith("1 2 3 \n") and "from-the-browser" in found["shown"]
    assert found["asked"] == ["echo from-the-browser"] and found["status"] == "completed"
