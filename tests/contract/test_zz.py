import pytest_twisted, copy, uuid
from driver import *
from test_contract_turn import broken_after_a_block, EVENTS
from twisted.internet.task import deferLater
@pytest_twisted.ensureDeferred
async def test_zz(stage):
    a=b=0; N=15
    for i in range(N):
        made=await stage(); await made.begin()
        await made.turn("[[say a]][[stop max_tokens]]",until=event("message_delta")); await made.cli.kill(); await deferLater(reactor,0.3)
        a+=len(made.requests)>1
        made=await stage(); await made.begin(); made.demo.answer=broken_after_a_block
        await made.turn("Hello",until=event("message_stop")); await made.cli.kill(); await deferLater(reactor,0.3)
        b+=len(made.requests)>1
    print("second request sent: delta %d/%d, broken stop %d/%d"%(a,N,b,N))
