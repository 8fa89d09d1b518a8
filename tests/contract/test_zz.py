from test_contract_tools import *
from driver import *
import driver
import pytest_twisted
IMG={"type": "image", "data": PNG, "mimeType": "image/png"}
def brief(r):
    return [(b["type"], len(b.get("text","")), b.get("text","")[-60:] if "TRUNC" in b.get("text","") else "") for b in r["content"]] if isinstance(r["content"],list) else r["content"][:200]
@pytest_twisted.ensureDeferred
async def test_zz(stage, monkeypatch):
  orig=driver.Stage.environment
  for extra_env in ({"MAX_MCP_OUTPUT_TOKENS":"100000000"},):
    monkeypatch.setattr(driver.Stage,"environment",lambda s: {**orig(s),**extra_env})
    made = await stage(context_window=10**8)
    await made.begin("S", **serving(*TOOLS))
    for nm,content in (("40k+img",[text("a"*40000),IMG]),("60k+img",[text("a"*60000),IMG]),("120k+img",[text("a"*120000),IMG]),("7 img",[IMG]*7),("8 img",[IMG]*8),("20 img",[IMG]*20),("250k",[text("long "*50000)]),("2x125k",[text("long "*25000),text("long "*25000)]),("490k",[text("a"*490000)])):
        c=await answered(made,"[[call zeta {}]]",(content,{"isError":False}))
        print(extra_env,nm,[r.path for r in c.after.requests], brief(conversation(c.after.requests[-1].body)[-1][1][0]))

@pytest_twisted.ensureDeferred
async def test_zy(stage):
    made = await stage()
    await made.begin("S", **serving(*TOOLS))
    ok=([text("1")],{"isError":False})
    out=[]
    for n in range(1001,1009):
        c=await answered(made,"[[call zeta {}]]",ok,before=[environ(CLAUDE_CODE_MAX_OUTPUT_TOKENS=str(n))])
        out.append((n,c.after.body["max_tokens"]))
    print("same write, max alone", out); out=[]
    for n in range(2001,2005):
        c=await answered(made,"[[call zeta {}]]",ok,before=[flags(model=OLD,effortLevel=None,env={"CLAUDE_CODE_MAX_OUTPUT_TOKENS":str(n),"CLAUDE_CODE_EXTRA_BODY":json.dumps({"stop_sequences":[str(n)]})})])
        out.append((n,c.after.body["max_tokens"],c.after.body["stop_sequences"]))
    print("same write, as the daemon", out); out=[]
    for n in range(3001,3005):
        turn,calls=await park(made,"[[call zeta {}]]")
        await made.cli.ask("apply_flag_settings",settings={"env":{"CLAUDE_CODE_MAX_OUTPUT_TOKENS":str(n)}})
        since,sent=len(made.cli.lines),len(made.requests)
        made.cli.answer(calls[0],text("1"))
        await made.cli.line(of_type("result"),since)
        out.append((n,made.requests[sent].body["max_tokens"]))
    print("awaited, max alone", out); out=[]
    for n in range(4001,4005):
        t=await made.turn("q",before=[environ(CLAUDE_CODE_MAX_OUTPUT_TOKENS=str(n))])
        out.append((n,t.body["max_tokens"]))
    print("new turn", out); out=[]
    for m in ("opus",OLD,"haiku","sonnet",OLD):
        c=await answered(made,"[[call zeta {}]]",ok,before=[flags(model=m)])
        out.append((m,c.after.body["model"],c.after.body["max_tokens"],c.after.body.get("thinking")))
    print("model alone", out); out=[]
